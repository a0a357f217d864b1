//! The cost of a search against the size of its index, as an SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{Cost, millis};

/// Draws the curves to `path`, both axes logarithmic.
pub fn draw(path: &Path, costs: &[Cost]) -> Result<()> {
    try_draw(path, costs).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn try_draw(path: &Path, costs: &[Cost]) -> Result<(), Box<dyn std::error::Error>> {
    type Curve = (&'static str, RGBColor, fn(&Cost) -> f64);
    let curves: [Curve; 4] = [
        ("as a client sees it, median", RGBColor(60, 60, 60), |cost| millis(cost.plain.median)),
        ("longest scope under the lock", RGBColor(200, 60, 40), |cost| millis(cost.filtered.longest_lock)),
        ("mean time under the lock, with a filter", RGBColor(220, 150, 30), |cost| millis(cost.filtered.lock)),
        ("mean time under the lock, without a filter", RGBColor(40, 110, 190), |cost| millis(cost.plain.lock)),
    ];
    let values = || costs.iter().flat_map(|cost| curves.iter().map(|(_, _, value)| value(cost)));
    let lowest = values().fold(f64::INFINITY, f64::min).max(0.001);
    let highest = values().fold(1.0, f64::max);
    let sizes = || costs.iter().map(|cost| cost.chunks as f64);
    let (least, most) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(1.0, f64::max));

    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption("INFER.SEARCH, K 5: milliseconds by number of chunks", ("sans-serif", 18))
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d((least * 0.8..most * 1.3).log_scale(), (lowest * 0.6..highest * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("chunks in the index")
        .y_desc("ms")
        .x_label_formatter(&|chunks| format!("{chunks:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (name, color, value) in curves {
        let points: Vec<(f64, f64)> = costs.iter().map(|cost| (cost.chunks as f64, value(cost))).collect();
        let line = LineSeries::new(points, color.stroke_width(2)).point_size(4);
        let drawn = chart.draw_series(line)?.label(name);
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}
