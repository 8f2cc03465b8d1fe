use super::*;

/// Collections with their inputs, `b <- a/x c/y`, in one line.
struct Namespace(Vec<(String, BTreeMap<String, Input>)>);

impl Namespace {
    fn of(text: &str) -> Self {
        let collection = |text: &str| {
            let (name, reads) = text.split_once(" <- ").unwrap_or((text, ""));
            let input = |(position, path): (usize, &str)| {
                let (collection, output) = path.split_once('/').unwrap();
                (format!("v{position}"), Input { collection: collection.to_owned(), output: output.to_owned() })
            };
            (name.to_owned(), reads.split_whitespace().enumerate().map(input).collect())
        };
        Self(text.split("; ").map(collection).collect())
    }

    /// All of them, with the graph that the inputs of version 1 give: outputs `x` and `total`.
    fn nodes(&self) -> Vec<Node<'_>> {
        let node = |(name, reads)| Node {
            name,
            reads,
            standing: Standing::Settled,
            outputs: Some(vec![("x", 1), ("total", 1)]),
            made_of: None,
        };
        self.0.iter().map(|(name, reads)| node((name.as_str(), reads))).collect()
    }
}

/// `a/x: why` for what is missing, `?` before what may change, versions for what is there.
fn shown(nodes: &[Node<'_>]) -> Vec<String> {
    let show = |verdict: Verdict| match verdict {
        Verdict::There { versions, unsettled } => {
            let versions: Vec<String> = versions.values().map(ToString::to_string).collect();
            unsettled.map_or(versions.join(" "), |missing| format!("? {missing}"))
        }
        Verdict::Missing(missing) => missing.to_string(),
        Verdict::Cycle(cycle) => describe_cycle(&cycle),
    };
    judge(nodes).into_iter().map(show).collect()
}

fn failed() -> BuildError {
    let message = "swordfish is no name".to_owned();
    BuildError { kind: "SyntaxError".to_owned(), message, traceback: None, line: Some(3) }
}

#[test]
fn inputs_that_are_there_have_versions() {
    let namespace = Namespace::of("b <- a/x a/total; a");
    let mut nodes = namespace.nodes();
    nodes[1].outputs = Some(vec![("x", 7), ("total", 8)]);
    assert_eq!(shown(&nodes), ["7 8", ""]);
}

#[test]
fn what_is_not_there_is_explained_with_what_is() {
    let namespace = Namespace::of("sales; report <- sale/x; other <- sales/totl; far <- zzz/x; empty <- none/x; none");
    let mut nodes = namespace.nodes();
    nodes[5].outputs = Some(Vec::new());
    assert_eq!(
        shown(&nodes)[1..5],
        [
            "sale/x: there is no PersistedCollection `sale` (did you mean `sales`?), or its own status says why it cannot be built",
            "sales/totl: `sales` has no output `totl` (did you mean `total`?); it has x, total",
            "zzz/x: there is no PersistedCollection `zzz`, or its own status says why it cannot be built",
            "none/x: `none` has no output `x`; it has none",
        ]
    );
}

#[test]
fn a_failed_collection_is_named_without_its_words() {
    let namespace = Namespace::of("a; b <- a/x");
    let error = failed();
    let mut nodes = namespace.nodes();
    nodes[0].standing = Standing::Failed(&error);
    // What it kept of an older revision is still there to be read.
    assert_eq!(shown(&nodes)[1], "1");
    nodes[0].outputs = None;
    assert_eq!(shown(&nodes)[1], "a/x: its collection failed: SyntaxError in line 3; the status of `a` says more");
}

#[test]
fn what_is_being_built_is_waited_for_along_the_chain() {
    let namespace = Namespace::of("c <- b/x; b <- a/x; a");
    let mut nodes = namespace.nodes();
    nodes[2].standing = Standing::UnderWay;
    nodes[2].outputs = Some(vec![("x", 1)]);
    assert_eq!(
        shown(&nodes),
        ["? b/x: its collection waits for the input a/x: its graph is being made", "? a/x: its graph is being made", ""]
    );
    nodes[2].outputs = None;
    nodes[1].standing = Standing::UnderWay;
    nodes[1].outputs = None;
    assert_eq!(
        shown(&nodes),
        ["b/x: its collection waits for the input a/x: its graph is being made", "a/x: its graph is being made", ""]
    );
}

#[test]
fn what_is_made_of_another_version_is_about_to_be_made_anew() {
    let namespace = Namespace::of("a; b <- a/x; c <- b/x");
    let (old, current) = (Versions::from([("v0".to_owned(), 1)]), Versions::from([("v0".to_owned(), 2)]));
    let mut nodes = namespace.nodes();
    nodes[0].outputs = Some(vec![("x", 2)]);
    nodes[1].made_of = Some(&old);
    assert_eq!(shown(&nodes), ["", "2", "? b/x: its graph is being made"]);
    nodes[1].made_of = Some(&current);
    assert_eq!(shown(&nodes), ["", "2", "1"]);
    // One that failed on these very inputs will not be tried again by itself.
    let error = failed();
    nodes[1].standing = Standing::Failed(&error);
    nodes[1].outputs = None;
    assert_eq!(shown(&nodes)[2], "b/x: its collection failed: SyntaxError in line 3; the status of `b` says more");
}

#[test]
fn a_graph_whose_input_has_gone_is_read_on() {
    let namespace = Namespace::of("b <- a/x; c <- b/x");
    assert_eq!(shown(&namespace.nodes())[1], "1");
}

#[test]
fn every_collection_of_a_cycle_tells_all_of_it_in_the_same_words() {
    for (text, cycle) in [
        ("a <- b/x; b <- a/x", "inputs form a cycle: a → b → a"),
        ("c <- a/x; b <- c/x; a <- b/x", "inputs form a cycle: a → b → c → a"),
        ("a <- a/x", "inputs form a cycle: a → a"),
    ] {
        let namespace = Namespace::of(text);
        let told = shown(&namespace.nodes());
        assert_eq!(told, vec![cycle; told.len()]);
    }
}

#[test]
fn cycles_that_share_a_collection_are_told_apart_and_others_are_not_blamed() {
    let namespace = Namespace::of("d <- c/x; c <- a/x; a <- b/x; b <- a/x z/x; z; e <- z/x; p <- q/x; q <- r/x p/x; r <- q/x");
    let told = shown(&namespace.nodes());
    let behind = "its collection failed: inputs form a cycle: a → b → a";
    assert_eq!(told[1], format!("a/x: {behind}"));
    assert_eq!(told[2..6], ["inputs form a cycle: a → b → a", "inputs form a cycle: a → b → a", "", "1"]);
    assert_eq!(told[6..], ["inputs form a cycle: p → q → p", "inputs form a cycle: p → q → p", "inputs form a cycle: q → r → q"]);
    // `c` has a graph from before, which `d` may go on reading.
    assert_eq!(told[0], "1");
    let mut nodes = namespace.nodes();
    nodes[1].standing = Standing::UnderWay;
    nodes[1].outputs = None;
    assert_eq!(shown(&nodes)[0], format!("c/x: its collection waits for the input a/x: {behind}"));
}

#[test]
fn a_namespace_full_of_chains_is_judged_at_once() {
    let count = 1000;
    let chain: Vec<String> = (1..count).map(|index| format!("n{index} <- n{}/x", index - 1)).collect();
    let namespace = Namespace::of(&format!("n0; {}", chain.join("; ")));
    assert_eq!(shown(&namespace.nodes()).last().map(String::as_str), Some("1"));
    let ring = Namespace::of(&format!("n0 <- n{}/x; {}", count - 1, chain.join("; ")));
    let told = shown(&ring.nodes());
    assert!(told[7].starts_with("inputs form a cycle: n0 → n999 → n998 → ") && told[7].ends_with(" … → n0"), "{}", told[7]);
}

#[test]
fn names_that_differ_in_a_letter_or_two_are_close() {
    for (name, close) in [("bsae", Some("base")), ("base-tabel", None), ("ba", None), ("vase2", Some("base")), ("ab", None)] {
        assert_eq!(close_to(name, ["base", "wx"].into_iter()).as_deref(), close, "{name}");
    }
}
