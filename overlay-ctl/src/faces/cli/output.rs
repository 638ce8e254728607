//! Prints answers to standard output, and warnings and errors to standard error.

use super::{Format, error::Error, print_error, view::View};
use serde::Serialize;
use std::io::Write;

pub(super) struct Output<'a> {
    format: Format,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    failed: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        format: Format,
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
    ) -> Self {
        Self { format, stdout, stderr, failed: false }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Prints an answer.
    pub(super) fn print(&mut self, view: &impl View) -> Result<(), Error> {
        match self.format {
            Format::Table => self.line(&view.text()),
            Format::Json => {
                serde_json::to_writer_pretty(&mut *self.stdout, view)?;
                self.line("")
            }
        }
    }

    /// Prints one of many answers immediately, on a line of its own.
    pub(super) fn print_line(&mut self, view: &impl View) -> Result<(), Error> {
        match self.format {
            Format::Table => self.line(&view.text()),
            Format::Json => self.line(&serde_json::to_string(view)?),
        }
    }

    /// Prints a value that has no table.
    pub(super) fn print_json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer_pretty(&mut *self.stdout, value)?;
        self.line("")
    }

    /// Prints a line of text.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Error> {
        writeln!(self.stdout, "{text}")?;
        self.stdout.flush()?;
        Ok(())
    }

    pub(super) fn warn(&mut self, message: &str) {
        // The command has succeeded even if its warning cannot be printed.
        writeln!(self.stderr, "warning: {message}").unwrap_or_default();
    }

    /// Prints an error. The command may go on, but ends as failed.
    pub(super) fn error(&mut self, error: &Error) {
        self.failed = true;
        print_error(self.stderr, &error.to_string());
    }

    pub(super) fn failed(&self) -> bool {
        self.failed
    }
}
