//! One strip per resource, one column per node: the grey column is what the node has, the coloured part what it gave. Nodes
//! that gave nothing are left out, so the width of a strip is the number of used nodes; panels of one picture have one scale.

use super::svg::{Anchor, Svg};

const LEFT: f64 = 80.0;
const WIDTH: f64 = 900.0;
const STRIP: f64 = 74.0;
const GAP: f64 = 10.0;
const HEAD: f64 = 44.0;
/// Columns at least that wide show each container.
const WIDE: f64 = 6.0;

/// One packing.
#[derive(Clone, Debug)]
pub struct Columns {
    /// What it is.
    pub title: String,
    /// Used nodes: what each has, and what each of its containers takes.
    pub nodes: Vec<([u64; 4], Vec<[u64; 4]>)>,
}

impl Columns {
    fn sum(items: &[[u64; 4]], d: usize) -> u64 {
        items.iter().map(|amounts| amounts[d]).sum()
    }

    /// The larger nodes first; of equal ones, the fuller first.
    fn ordered(&self, dimensions: usize) -> Vec<&([u64; 4], Vec<[u64; 4]>)> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        let fill = |(capacity, items): &([u64; 4], Vec<[u64; 4]>)| {
            let share = |d: usize| Self::sum(items, d) as f64 / capacity[d].max(1) as f64;
            (0..dimensions).map(share).sum::<f64>()
        };
        nodes.sort_by(|a, b| b.0.cmp(&a.0).then(fill(b).total_cmp(&fill(a))));
        nodes
    }
}

/// Panels below each other. `bound`: no packing has fewer nodes.
pub fn columns(title: &str, names: &[&str], bound: usize, panels: &[Columns]) -> String {
    let mut svg = Svg::new(LEFT + WIDTH + 20.0);
    svg.text(LEFT, 24.0, "t", Anchor::Start, title);
    let most = panels.iter().map(|panel| panel.nodes.len()).chain([bound, 1]).max().unwrap_or(1);
    let width = WIDTH / most as f64;
    let mut top = 38.0;
    for panel in panels {
        top = draw(&mut svg, top, width, names, bound, panel);
    }
    svg.text(
        LEFT,
        top + 16.0,
        "s",
        Anchor::Start,
        "one column a node, the largest and fullest first; grey: unused; red: no packing has fewer nodes",
    );
    svg.finish(top + 28.0)
}

fn draw(svg: &mut Svg, top: f64, width: f64, names: &[&str], bound: usize, panel: &Columns) -> f64 {
    let nodes = panel.ordered(names.len());
    let count = nodes.len();
    svg.text(LEFT, top + 24.0, "", Anchor::Start, &format!("{}: {count} nodes", panel.title));
    let strips = top + HEAD;
    for (d, name) in names.iter().enumerate() {
        let bottom = strips + (STRIP + GAP) * d as f64 + STRIP;
        let largest = nodes.iter().map(|(capacity, _)| capacity[d]).max().unwrap_or(1).max(1) as f64;
        let height = |amount: u64| amount as f64 / largest * STRIP;
        let room: Vec<f64> = nodes.iter().map(|(capacity, _)| height(capacity[d])).collect();
        let given: Vec<f64> = nodes.iter().map(|(_, items)| height(Columns::sum(items, d))).collect();
        svg.steps(LEFT, bottom, width, &room, "room");
        svg.steps(LEFT, bottom, width, &given, &format!("d{d}"));
        if width >= WIDE {
            separate(svg, bottom, width, &nodes, &|items| items.iter().map(|amounts| height(amounts[d])).collect());
        }
        let share = 100.0 * given.iter().sum::<f64>() / room.iter().sum::<f64>().max(1e-9);
        svg.text(LEFT - 8.0, bottom - STRIP / 2.0, "", Anchor::End, name);
        svg.text(LEFT - 8.0, bottom - STRIP / 2.0 + 16.0, "s", Anchor::End, &format!("{share:.1} %"));
    }
    let end = strips + (STRIP + GAP) * names.len() as f64;
    let x = LEFT + width * bound as f64;
    svg.vertical(x, strips - 4.0, end - GAP, "mark");
    svg.text(x, strips - 8.0, "m", Anchor::End, &format!("bound {bound}"));
    end
}

type Node = ([u64; 4], Vec<[u64; 4]>);

/// Lines between the containers of a node, and between nodes.
fn separate(svg: &mut Svg, bottom: f64, width: f64, nodes: &[&Node], heights: &dyn Fn(&[[u64; 4]]) -> Vec<f64>) {
    let mut lines = Vec::new();
    for (index, (_, items)) in nodes.iter().enumerate() {
        let mut top = bottom;
        for height in heights(items) {
            top -= height;
            lines.push((LEFT + width * index as f64, top, width));
        }
        svg.vertical(LEFT + width * index as f64, bottom - STRIP, bottom, "cut");
    }
    svg.cuts(lines.into_iter(), "cut");
}

#[cfg(test)]
mod tests {
    use super::{Columns, columns};

    #[test]
    fn every_node_and_the_bound_are_drawn() {
        let full = ([10, 20, 0, 0], vec![[5, 10, 0, 0]; 2]);
        let half = ([10, 20, 0, 0], vec![[5, 10, 0, 0]]);
        let panel = Columns { title: "online".into(), nodes: vec![half, full] };
        let text = columns("x", &["cpu", "memory"], 2, &[panel]);
        assert!(text.contains("online: 2 nodes") && text.contains("bound 2") && text.contains("75.0 %"), "{text}");
        // The full node comes first: its column is as high as the strip.
        assert!(text.contains("class=\"d0\" d=\"M80 156V82H530V119H980V156Z\""), "{text}");
    }
}
