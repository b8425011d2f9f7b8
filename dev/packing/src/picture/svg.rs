//! A small writer of SVG: text, rectangles, lines, and areas below steps. Numbers have one decimal, so that files stay small.
//! Knows nothing of what is drawn.

use std::fmt::Write;

/// The look of everything, by class.
const STYLE: &str = "text{font:12px sans-serif;fill:#222}.t{font-size:17px;font-weight:bold}.s{fill:#555}.b{fill:#fff}\
    .room{fill:#e3e6ea}.d0{fill:#2b6cb0}.d1{fill:#2f855a}.d2{fill:#b7791f}.d3{fill:#805ad5}.part{fill:#f6ad55}\
    .cut{stroke:#fff;stroke-width:.8;fill:none}.mark{stroke:#c53030;stroke-width:1.5;stroke-dasharray:5 3;fill:none}.m{fill:#c53030}";

/// A picture in the making.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    body: String,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    End,
}

/// A number as short as it can be.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

impl Svg {
    pub(super) fn new(width: f64) -> Self {
        Self { width, body: String::new() }
    }

    /// The picture as a file.
    pub(super) fn finish(self, height: f64) -> String {
        let (width, height, body) = (short(self.width), short(height), self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\
             <style>{STYLE}</style>\n<rect class=\"b\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        )
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes everything");
    }

    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (x, y, text) = (short(x), short(y), escaped(text));
        self.add(format_args!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\"{anchor}>{text}</text>"));
    }

    pub(super) fn rect(&mut self, [x, y, width, height]: [f64; 4], class: &str) {
        let [x, y, width, height] = [x, y, width, height].map(short);
        self.add(format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"));
    }

    pub(super) fn vertical(&mut self, x: f64, top: f64, bottom: f64, class: &str) {
        let [x, top, bottom] = [x, top, bottom].map(short);
        self.add(format_args!("<path class=\"{class}\" d=\"M{x} {top}V{bottom}\"/>"));
    }

    /// Many short horizontal lines `(x, y, length)` as one path.
    pub(super) fn cuts(&mut self, lines: impl Iterator<Item = (f64, f64, f64)>, class: &str) {
        let path: String =
            lines.map(|(x, y, length)| format!("M{} {}h{}", short(x), short(y), short(length))).collect();
        if !path.is_empty() {
            self.add(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// The area between `bottom` and one step per height, each `width` wide. Equal neighbours are one step.
    pub(super) fn steps(&mut self, x: f64, bottom: f64, width: f64, heights: &[f64], class: &str) {
        let mut path = format!("M{} {}", short(x), short(bottom));
        for (index, height) in heights.iter().enumerate() {
            let top = short(bottom - height);
            if index == 0 || top != short(bottom - heights[index - 1]) {
                write!(path, "V{top}").expect("a string takes everything");
            }
            if heights.get(index + 1).is_none_or(|next| short(bottom - next) != top) {
                write!(path, "H{}", short(x + width * (index + 1) as f64)).expect("a string takes everything");
            }
        }
        self.add(format_args!("<path class=\"{class}\" d=\"{path}V{}Z\"/>", short(bottom)));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Anchor, Svg, short};

    #[test]
    fn numbers_are_short() {
        assert_eq!([3.0, 3.04, 3.05001, -0.01].map(short), ["3", "3", "3.1", "0"]);
    }

    #[test]
    fn equal_steps_are_one() {
        let mut svg = Svg::new(10.0);
        svg.steps(0.0, 10.0, 2.0, &[5.0, 5.0, 2.5], "d0");
        svg.text(1.0, 2.0, "s", Anchor::End, "a<b & c");
        let text = svg.finish(20.0);
        assert!(text.contains("d=\"M0 10V5H4V7.5H6V10Z\""), "{text}");
        assert!(text.contains("text-anchor=\"end\">a&lt;b &amp; c</text>"), "{text}");
    }
}
