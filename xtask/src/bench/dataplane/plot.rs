//! The figures as a picture: a group of bars for each row. A bar is as long as the contestant is fast in
//! relation to the row's base. Both files come from one drawing. The font is in this binary, because a
//! server may have none.

use std::{cmp::Ordering, collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    report::ratio,
    rows::Row,
    scene::{
        self, BESIDE, BRIDGE, DOCKER, HUNDRED, KERNEL, MILLION, OURS, Place, Topology, UNDERLAY,
        Underlay,
    },
    traffic::Series,
};
use crate::bench::turns::Measured;

const WIDTH: i32 = 1000;
/// Horizontal position where bars begin; the rows' titles are left of it.
const AXIS: i32 = 290;
/// Room for the figure after the longest bar.
const LABEL: i32 = 190;
const TOP: i32 = 84;
const BOTTOM: i32 = 34;
const BAR: i32 = 15;
const GAP: i32 = 11;
const HEADING: i32 = 28;
const FONT: &str = "sans-serif";
/// Pixels of the bitmap for one pixel of the drawing, because screens have a high resolution.
const PNG_SCALE: i32 = 2;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x77, 0x77, 0x77);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// One bar.
struct Bar {
    name: &'static str,
    /// Speed in relation to the base.
    length: f64,
    label: String,
}

/// The bars of one row.
struct Group {
    heading: &'static str,
    title: String,
    bars: Vec<Bar>,
}

/// A backend's area, addressed in pixels of the drawing.
struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: i32,
}

/// Creates the folder, so that an error is seen before the measurement.
pub(super) fn prepare(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes dataplane.svg and dataplane.png.
pub(super) fn draw(measured: &Measured<Row, Series>, caption: &str, folder: &Path) -> Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow!("the font in this binary can't be read"))?;
    let groups: Vec<Group> =
        measured.iter().filter_map(|(row, contestants)| Group::new(*row, contestants)).collect();
    let height = height(&groups);
    let svg = folder.join("dataplane.svg");
    let area = SVGBackend::new(&svg, size(height, 1)?).into_drawing_area();
    paint(&Canvas { area: &area, scale: 1 }, &groups, caption, height)
        .with_context(|| format!("cannot draw {}", svg.display()))?;
    let png = folder.join("dataplane.png");
    let area = BitMapBackend::new(&png, size(height, PNG_SCALE)?).into_drawing_area();
    paint(&Canvas { area: &area, scale: PNG_SCALE }, &groups, caption, height)
        .with_context(|| format!("cannot draw {}", png.display()))?;
    println!("plot: {} and {}", svg.display(), png.display());
    Ok(())
}

impl Group {
    /// `None` if the row's base was not measured.
    fn new(row: Row, contestants: &BTreeMap<&'static str, Series>) -> Option<Self> {
        let bars = scene::ALL.iter().filter_map(|&name| {
            let series = contestants.get(name)?;
            let ratio = ratio(contestants, (name, row.place.base()))?;
            let figure = series.figure.median();
            let (unit, _) = row.traffic.unit().split_once(',').unwrap_or((row.traffic.unit(), ""));
            Some(Bar {
                name,
                length: if row.traffic.less_is_better() { 1.0 / ratio } else { ratio },
                label: format!("{} {unit}  ({ratio:.2})", rounded(figure)),
            })
        });
        let bars: Vec<Bar> = bars.collect();
        let heading = match row.place {
            Place::TwoHosts(Underlay { topology: Topology::Router, .. }) => {
                "two hosts, bridges and a router between them, MTU 1500"
            }
            Place::TwoHosts(Underlay { mtu: 1500, .. }) => "two hosts on one wire, MTU 1500",
            Place::TwoHosts(_) => "two hosts on one wire, MTU 9000",
            Place::OneHost => "one host, beside a bridge",
            Place::Crowd => "two hosts, by endpoints in the maps, beside 100",
        };
        (!bars.is_empty()).then(|| Self { heading, title: row.short_title(), bars })
    }

    fn height(&self) -> i32 {
        BAR * i32::try_from(self.bars.len()).unwrap_or(i32::MAX / BAR) + GAP
    }
}

fn paint<B: DrawingBackend>(
    canvas: &Canvas<'_, B>,
    groups: &[Group],
    caption: &str,
    height: i32,
) -> Result<()> {
    canvas.area.fill(&WHITE).map_err(cannot)?;
    canvas.text("How fast beside the underlay itself", (20, 24), (20, INK), HPos::Left)?;
    let note = "longer is better; in brackets the ratio of the figures";
    canvas.text(note, (WIDTH - 20, 24), (13, FAINT), HPos::Right)?;
    legend(canvas, groups)?;
    let longest = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.length);
    let longest = longest.max_by(f64::total_cmp).unwrap_or(1.0).max(1.0);
    let unit = f64::from(WIDTH - AXIS - LABEL) / longest;
    let right_of = |length: f64| AXIS + (length * unit).round() as i32;
    let steps = (longest / 0.25).floor() as i32;
    for step in 0..=steps {
        let share = f64::from(step) * 0.25;
        let x = right_of(share);
        let strong = share.total_cmp(&1.0) == Ordering::Equal;
        canvas.rect((x, TOP), (x + 1, height - BOTTOM), if strong { FAINT } else { GRID })?;
        canvas.text(&format!("{share}"), (x, TOP - 9), (12, FAINT), HPos::Center)?;
    }
    let (mut y, mut heading) = (TOP, "");
    for group in groups {
        if group.heading != heading {
            heading = group.heading;
            canvas.text(heading, (20, y + HEADING / 2 + 1), (15, INK), HPos::Left)?;
            y += HEADING;
        }
        let middle = y + (group.height() - GAP) / 2;
        canvas.text(&group.title, (AXIS - 12, middle), (13, INK), HPos::Right)?;
        for bar in &group.bars {
            let end = right_of(bar.length);
            canvas.rect((AXIS, y + 1), (end, y + BAR - 1), colour(bar.name))?;
            canvas.text(&bar.label, (end + 6, y + BAR / 2), (12, INK), HPos::Left)?;
            y += BAR;
        }
        y += GAP;
    }
    canvas.text(caption, (20, height - BOTTOM / 2), (12, FAINT), HPos::Left)?;
    canvas.area.present().map_err(cannot)
}

fn legend<B: DrawingBackend>(canvas: &Canvas<'_, B>, groups: &[Group]) -> Result<()> {
    let mut x = 20;
    for name in scene::ALL {
        if !groups.iter().flat_map(|group| &group.bars).any(|bar| bar.name == name) {
            continue;
        }
        canvas.rect((x, 46), (x + 12, 58), colour(name))?;
        canvas.text(name, (x + 18, 52), (13, INK), HPos::Left)?;
        x += 48 + 7 * i32::try_from(name.len()).unwrap_or_default();
    }
    Ok(())
}

impl<B: DrawingBackend> Canvas<'_, B> {
    fn rect(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<()> {
        let corners = [from, to].map(|(x, y)| (x * self.scale, y * self.scale));
        self.area.draw(&Rectangle::new(corners, colour.filled())).map_err(cannot)
    }

    fn text(
        &self,
        text: &str,
        (x, y): (i32, i32),
        (size, colour): (i32, RGBColor),
        side: HPos,
    ) -> Result<()> {
        let style = TextStyle::from((FONT, size * self.scale).into_font())
            .color(&colour)
            .pos(Pos::new(side, VPos::Center));
        let at = (x * self.scale, y * self.scale);
        self.area.draw(&Text::new(text.to_owned(), at, style)).map_err(cannot)
    }
}

fn height(groups: &[Group]) -> i32 {
    let mut headings: Vec<&str> = groups.iter().map(|group| group.heading).collect();
    headings.dedup();
    let headings = HEADING * i32::try_from(headings.len()).unwrap_or_default();
    TOP + headings + groups.iter().map(Group::height).sum::<i32>() + BOTTOM
}

fn size(height: i32, scale: i32) -> Result<(u32, u32)> {
    Ok(((WIDTH * scale).try_into()?, (height * scale).try_into()?))
}

/// The contestant's colour. The colours differ also for people who cannot tell red from green.
fn colour(name: &str) -> RGBColor {
    match name {
        BESIDE => RGBColor(0x77, 0x77, 0x77),
        UNDERLAY | BRIDGE | HUNDRED => RGBColor(0xb3, 0xb3, 0xb3),
        KERNEL => RGBColor(0x56, 0xb4, 0xe9),
        DOCKER => RGBColor(0x00, 0x72, 0xb2),
        OURS | MILLION => RGBColor(0xe6, 0x7a, 0x00),
        _ => INK,
    }
}

/// The figure with three digits or more.
fn rounded(figure: f64) -> String {
    let decimals = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    format!("{figure:.decimals$}")
}

/// An error with the text of a backend's error, which itself borrows from the backend.
fn cannot(error: impl fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(rounded(9.876), "9.88");
        assert_eq!(rounded(24.912), "24.9");
        assert_eq!(rounded(9023.4), "9023");
    }

    #[test]
    fn a_shorter_latency_is_a_longer_bar() {
        let row = Row::matching(&["tcp-latency".to_owned()])[0];
        let series = |figure: f64| {
            let figure: crate::bench::stats::Samples = [figure].into_iter().collect();
            Series { cpu: figure.clone(), figure }
        };
        let contestants = BTreeMap::from([(UNDERLAY, series(10.0)), (OURS, series(12.5))]);
        let group = Group::new(row, &contestants).unwrap();
        let lengths: Vec<f64> = group.bars.iter().map(|bar| bar.length).collect();
        assert_eq!(lengths, [1.0, 0.8]);
        assert_eq!(group.bars[1].label, "12.5 us  (1.25)");
    }
}
