//! GPUs of a cluster, a strip per model: one column a node, one cell a GPU. Blue is given, orange the free rest of a GPU that is
//! shared, grey a GPU that is free as a whole.

use super::svg::{Anchor, Svg};
use std::collections::BTreeMap;

const LEFT: f64 = 110.0;
const WIDTH: f64 = 900.0;
const CELL: f64 = 8.0;
const TEXT: f64 = 14.0;
const COLUMN_MAX: f64 = 10.0;
const WHOLE: f64 = 1000.0;

/// The GPUs after a policy placed what arrived.
#[derive(Clone, Debug)]
pub struct Gpus {
    /// What it is.
    pub title: String,
    /// Each node: the model of its GPUs and how many thousandths each of them gave.
    pub nodes: Vec<(String, Vec<u32>)>,
}

/// Panels below each other.
pub fn gpus(title: &str, panels: &[Gpus]) -> String {
    let mut svg = Svg::new(LEFT + WIDTH + 20.0);
    svg.text(LEFT, 24.0, "t", Anchor::Start, title);
    let mut top = 32.0;
    for panel in panels {
        top = draw(&mut svg, top, panel);
    }
    let mut x = LEFT;
    for (class, text, room) in
        [("d0", "given", 70.0), ("part", "free rest of a shared GPU", 190.0), ("room", "free as a whole", 130.0)]
    {
        svg.rect([x, top + 6.0, 12.0, 12.0], class);
        svg.text(x + 17.0, top + 16.0, "s", Anchor::Start, text);
        x += room;
    }
    svg.text(
        x,
        top + 16.0,
        "s",
        Anchor::Start,
        "one column a node, one cell a GPU; per model the share that was given",
    );
    svg.finish(top + 30.0)
}

fn share(nodes: &[&Vec<u32>]) -> f64 {
    let given: u64 = nodes.iter().flat_map(|gave| gave.iter()).map(|millis| u64::from(*millis)).sum();
    let have: usize = nodes.iter().map(|gave| gave.len()).sum();
    100.0 * given as f64 / (have.max(1) as f64 * WHOLE)
}

fn draw(svg: &mut Svg, top: f64, panel: &Gpus) -> f64 {
    let mut models: BTreeMap<&str, Vec<&Vec<u32>>> = BTreeMap::new();
    for (model, gave) in panel.nodes.iter().filter(|(_, gave)| !gave.is_empty()) {
        models.entry(model).or_default().push(gave);
    }
    let all: Vec<&Vec<u32>> = models.values().flatten().copied().collect();
    svg.text(LEFT, top + 24.0, "", Anchor::Start, &format!("{}: {:.2} % of the GPUs given", panel.title, share(&all)));
    let mut models: Vec<(&str, Vec<&Vec<u32>>)> = models.into_iter().collect();
    models.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.iter().map(|gave| gave.len()).sum::<usize>()));
    let mut top = top + 34.0;
    for (model, mut nodes) in models {
        let given = |gave: &[u32]| gave.iter().sum::<u32>();
        nodes.sort_by_key(|gave| std::cmp::Reverse((gave.len(), given(gave))));
        let cells = nodes.first().map_or(1, |gave| gave.len());
        let bottom = top + cells as f64 * CELL;
        let width = (WIDTH / nodes.len() as f64).min(COLUMN_MAX);
        let heights = |of: &dyn Fn(&[u32]) -> f64| nodes.iter().map(|gave| of(gave) * CELL).collect::<Vec<f64>>();
        svg.steps(LEFT, bottom, width, &heights(&|gave| gave.len() as f64), "room");
        let touched = heights(&|gave| gave.iter().filter(|millis| **millis > 0).count() as f64);
        svg.steps(LEFT, bottom, width, &touched, "part");
        svg.steps(LEFT, bottom, width, &heights(&|gave| f64::from(given(gave)) / WHOLE), "d0");
        let middle = bottom - (cells as f64 * CELL - CELL) / 2.0;
        svg.text(LEFT - 8.0, middle, "", Anchor::End, &format!("{model} {:.0} %", share(&nodes)));
        top = bottom.max(top + TEXT) + CELL;
    }
    top
}

#[cfg(test)]
mod tests {
    use super::{Gpus, gpus};

    #[test]
    fn shares_are_told_apart_from_free_ones() {
        let nodes = vec![("G2".to_owned(), vec![1000, 0]), ("T4".to_owned(), vec![500]), (String::new(), vec![])];
        let text = gpus("x", &[Gpus { title: "pack".into(), nodes }]);
        assert!(text.contains("pack: 50.00 % of the GPUs given"), "{text}");
        assert!(text.contains("G2 50 %") && text.contains("T4 50 %"), "{text}");
        assert!(text.contains("class=\"part\" d=\"M110 98V90H120V98Z\""), "{text}");
        assert!(text.contains("class=\"d0\" d=\"M110 98V94H120V98Z\""), "{text}");
    }
}
