//! Curves as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::report::Plot;

const COLORS: [RGBColor; 4] =
    [RGBColor(200, 60, 40), RGBColor(40, 110, 190), RGBColor(90, 90, 90), RGBColor(220, 150, 30)];

/// Draws `plot` into `folder`.
pub fn draw(folder: &Path, plot: &Plot) -> Result<()> {
    let path = folder.join(format!("{}.svg", plot.file));
    let xs = || plot.curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.0));
    let (least, most) = (xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max));
    let drawn = if plot.log_x {
        on_axis(&path, plot, (least * 0.9..most * 1.1).log_scale())
    } else {
        on_axis(&path, plot, least..most)
    };
    drawn.map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn on_axis<X>(path: &Path, plot: &Plot, x: X) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let highest = plot.curves.iter().flat_map(|curve| &curve.points).fold(0.0, |most, point| point.1.max(most));
    let area = SVGBackend::new(path, (720, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption(plot.title, ("sans-serif", 18))
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(x, 0.0..highest * 1.15)?;
    chart
        .configure_mesh()
        .x_desc(plot.x)
        .y_desc(plot.y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, color) in plot.curves.iter().zip(COLORS.into_iter().cycle()) {
        let line = LineSeries::new(curve.points.clone(), color.stroke_width(2)).point_size(4);
        let drawn = chart.draw_series(line)?.label(curve.name);
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}
