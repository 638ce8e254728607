//! One virtual machine that runs one command.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{fetch::Kernel, initrd, share::Share};

/// Names of the ports to which a guest writes its output and exit code.
const OUTPUT: &str = "overlay.output";
const STATUS: &str = "overlay.status";
/// Number of the console's last lines that are shown when a guest died.
const CONSOLE_LINES: usize = 40;

static MACHINES: AtomicU32 = AtomicU32::new(0);

/// The clock of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The host's clock.
    Wall,
    /// A nanosecond is one instruction, and idle time is skipped. Times measured inside are numbers of
    /// instructions, which are the same on a busy machine and on an idle one. The guest has one CPU.
    Instructions,
}

/// A virtual machine, before it is started.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) clock: Clock,
    /// The guest's network card; `None`: it has none.
    pub(crate) link: Option<Link<'a>>,
}

/// A network card of a guest. Its other end is a tap of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    /// The file of the namespace in which the tap is.
    pub(crate) netns: &'a Path,
    pub(crate) tap: &'a str,
    /// The card as qemu calls it.
    pub(crate) model: &'a str,
    pub(crate) mac: &'a str,
}

impl Machine<'_> {
    /// Boots, runs a command as root in the host's own file system, and powers off. The command's changes of
    /// files are lost. Each line of its stdout and stderr goes to `each`. Returns its exit code.
    ///
    /// # Errors
    /// The guest did not boot, died, or had not ended within `limit`.
    pub(crate) fn run(
        &self,
        command: &Command,
        limit: Duration,
        mut each: impl FnMut(&str),
    ) -> Result<i32> {
        let folder = Folder::create()?;
        let initrd = initrd::pack(self.kernel, &job(self.kernel, command)?, &folder.0)?;
        let share = Share::start(&folder.0)?;
        let (console, status) = (folder.0.join("console"), folder.0.join("status"));
        let errors = folder.0.join("qemu.log");
        let mut qemu = self
            .qemu(&initrd, &share.socket, &console, &status)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors)?)
            .spawn()
            .context("cannot start qemu-system-x86_64 (package qemu-system-x86)")?;
        let pid = Pid::from_raw(i32::try_from(qemu.id())?);
        let output = qemu.stdout.take().context("a pipe")?;
        let (done, ended) = mpsc::channel::<()>();
        let late = thread::scope(|scope| -> Result<bool> {
            let watchdog = scope.spawn(move || {
                let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
                // qemu is reaped only after this thread has ended, so that the id is still qemu's.
                late && kill(pid, Signal::SIGKILL).is_ok()
            });
            let read = BufReader::new(output).split(b'\n').try_for_each(|line| -> Result<()> {
                let line = line?;
                each(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                Ok(())
            });
            drop(done);
            let late = watchdog.join().unwrap_or(false);
            read.map(|()| late)
        });
        let exit = qemu.wait()?;
        if late? {
            bail!("the guest was not done within {limit:?}");
        }
        let code = fs::read_to_string(&status).unwrap_or_default();
        code.trim().parse().with_context(|| {
            let tail = tail(&console, CONSOLE_LINES);
            format!("the guest said no exit code ({exit})\n{}{tail}", tail_of(&errors))
        })
    }

    fn qemu(&self, initrd: &Path, socket: &Path, console: &Path, status: &Path) -> Command {
        let (cpus, cpu, accelerator, quicker) = match self.clock {
            // qemu finds translated code again only at the same address. With random addresses each program is
            // translated again when it starts, which takes four times as long.
            // One guest in forty died in an allocation right after cmpxchg16b, as qemu 7.2 translates it; the
            // kernel does without that instruction where a CPU lacks it.
            Clock::Wall => {
                (self.cpus, "max,-cx16", "tcg,thread=multi", "norandmaps init_on_alloc=0")
            }
            // Clearing memory takes instructions too, which belong to the figures.
            Clock::Instructions => (1, "max", "tcg,thread=single", ""),
        };
        let memory = self.memory_mib;
        // The kernel kills qemu when xtask is killed, because no other process would.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL"]);
        if let Some(Link { netns, .. }) = self.link {
            qemu.arg("nsenter").arg(format!("--net={}", netns.display()));
        }
        qemu.arg("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-machine", "q35,usb=off,sata=off,smbus=off", "-cpu", cpu])
            .args(["-accel", accelerator, "-smp", &cpus.to_string(), "-m", &memory.to_string()])
            // virtiofsd reads and writes the guest's memory itself.
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=memory,size={memory}M,share=on"))
            .args(["-numa", "node,memdev=memory", "-device", "virtio-rng-pci"])
            .args(["-chardev", &format!("socket,id=host,path={}", socket.display())])
            .args(["-device", "vhost-user-fs-pci,chardev=host,tag=host,queue-size=1024"])
            .args(["-device", "virtio-serial-pci"]);
        for (name, file) in [(OUTPUT, Path::new("/dev/stdout")), (STATUS, status)] {
            qemu.args(["-chardev", &format!("file,id={name},path={}", file.display())])
                .args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        qemu.args(["-chardev", &format!("file,id=console,path={}", console.display())])
            .args(["-serial", "chardev:console"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(initrd)
            // A guest ends at an oops, because its later results would prove nothing.
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 oops=panic mitigations=off tsc=reliable {quicker}"
            ));
        if let Some(Link { tap, model, mac, netns: _ }) = self.link {
            qemu.args(["-netdev", &format!("tap,id=link,ifname={tap},script=no,downscript=no")])
                .args(["-device", &format!("{model},netdev=link,mac={mac}")]);
        }
        if self.clock == Clock::Instructions {
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        qemu
    }
}

/// The command as a shell script for process 1 of the guest. Its output and exit code go to the ports, then
/// the machine is switched off.
fn job(kernel: &Kernel, command: &Command) -> Result<String> {
    let modules = kernel.modules();
    let modules = quoted(modules.as_os_str())?;
    let release = &kernel.release;
    let mut line = String::new();
    if let Some(folder) = command.get_current_dir() {
        line += &format!("cd {} && ", quoted(folder.as_os_str())?);
    }
    line += "exec env";
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        match value {
            Some(value) => line += &format!(" {name}={}", quoted(value)?),
            None => line += &format!(" -u {name}"),
        }
    }
    for word in [command.get_program()].into_iter().chain(command.get_args()) {
        line += &format!(" {}", quoted(word)?);
    }
    Ok(format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8\n\
         mkdir -p /lib/modules/{release}\n\
         mount --bind {modules} /lib/modules/{release}\n\
         for port in /sys/class/virtio-ports/*; do\n\
           read -r name < $port/name\n\
           case $name in\n\
             {OUTPUT}) output=/dev/${{port##*/}};;\n\
             {STATUS}) status=/dev/${{port##*/}};;\n\
           esac\n\
         done\n\
         hostname guest; ip link set lo up\n\
         {{ ({line}) < /dev/null 2>&1; echo $? > $status; }} | cat > $output\n\
         echo o > /proc/sysrq-trigger; sleep 60\n"
    ))
}

/// The word in quotes, so that a shell does not change it.
fn quoted(word: &OsStr) -> Result<String> {
    let word = word.to_str().with_context(|| format!("{} is not UTF-8", word.display()))?;
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

fn tail_of(file: &Path) -> String {
    tail(file, CONSOLE_LINES)
}

/// The last lines of a file; empty if there is no file.
fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let mut tail = all[all.len().saturating_sub(lines)..].join("\n");
    tail.push('\n');
    tail
}

/// The folder with a machine's files, which is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    /// Creates the folder in the system's folder for temporary files, because a socket's path must be short.
    fn create() -> Result<Self> {
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("overlay-vm-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Mounts below the folder exist only in virtiofsd's own namespace.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        let word = "it's $HOME and `more`";
        let quoted = quoted(OsStr::new(word)).expect("UTF-8");
        let printed = Command::new("sh").arg("-c").arg(format!("printf %s {quoted}")).output();
        assert_eq!(String::from_utf8_lossy(&printed.expect("sh").stdout), word);
    }
}
