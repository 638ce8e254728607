//! Circles in a graph. Each is shown as the shortest path from a node back to itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The arrows of each node, each with a text that tells where the arrow is from.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// For each set of nodes that all reach each other, the shortest circle in it. An arrow from a node to itself
/// is no circle.
pub(super) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for node in graph.keys() {
        if seen.contains(node) {
            continue;
        }
        if let Some(circle) = shortest_back(graph, node) {
            let ahead = reach(graph, node);
            let same = ahead.iter().filter(|other| reach(graph, other).contains(node.as_str()));
            seen.extend(same.map(|&other| other.to_owned()));
            found.push(circle);
        }
    }
    found
}

/// Returns true if an arrow is part of a circle.
pub(super) fn closes_one(graph: &Graph, from: &str, to: &str) -> bool {
    let exists = graph.get(from).is_some_and(|arrows| arrows.contains_key(to));
    exists && reach(graph, to).contains(from)
}

/// The shortest path from a node to itself, without the node at its end.
fn shortest_back(graph: &Graph, node: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![node.to_owned()]]);
    let mut reached = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way.last()?;
        for next in
            graph.get(last).into_iter().flat_map(BTreeMap::keys).filter(|next| *next != last)
        {
            if next == node {
                return Some(way);
            }
            if reached.insert(next.clone()) {
                ways.push_back([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

fn reach<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut todo: Vec<&String> = graph.get(from).into_iter().flat_map(BTreeMap::keys).collect();
    while let Some(node) = todo.pop() {
        if reached.insert(node.as_str()) {
            todo.extend(graph.get(node).into_iter().flat_map(BTreeMap::keys));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(arrows: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in arrows {
            let arrows = graph.entry((*from).to_owned()).or_default();
            arrows.insert((*to).to_owned(), String::new());
        }
        graph
    }

    #[test]
    fn each_tangle_shows_a_circle() {
        assert_eq!(circles(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), [[""; 0]; 0]);
        let two =
            [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "d"), ("d", "e"), ("e", "d")];
        assert_eq!(circles(&graph(&two)), [["a", "b"], ["d", "e"]]);
    }

    #[test]
    fn a_file_that_names_itself_is_no_circle() {
        assert_eq!(circles(&graph(&[("a", "a"), ("a", "b")])), [[""; 0]; 0]);
    }

    #[test]
    fn an_arrow_closes_a_circle_or_does_not() {
        let graph = graph(&[("a", "b"), ("b", "a"), ("b", "c")]);
        assert!(closes_one(&graph, "b", "a"));
        assert!(!closes_one(&graph, "b", "c"));
        assert!(!closes_one(&graph, "c", "b"));
    }
}
