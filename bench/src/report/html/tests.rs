use super::super::example;
use super::*;
use serde_json::Value;

/// Elements that have no end.
const VOID_ELEMENTS: [&str; 2] = ["!DOCTYPE", "meta"];

/// Walks a page as strictly as an XML parser would: every element closed in order, no stray bracket.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        if open.last() != Some(&"style") {
            assert!(!text.contains('>'), "a stray bracket in {text:?}");
        }
        check_entities(text);
        rest = &rest[start + 1..];
        let end = rest.find('>').expect("every tag has its end");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        assert!(!tag.contains('<'), "an unescaped text in {tag:?}");
        assert!(tag.matches('"').count().is_multiple_of(2), "an attribute without end in {tag:?}");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in another order");
        } else if !tag.ends_with('/') && !VOID_ELEMENTS.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn check_entities(text: &str) {
    for part in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(known.iter().any(|entity| part.starts_with(entity)), "a bare ampersand before {part:?}");
    }
}

pub fn check_page(page: &str) {
    check_well_formed(page);
    for wrong in ["NaN", "inf\"", "inf ", "http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(
            !page.contains(wrong),
            "{wrong:?} in the page, at {:?}",
            page.split(wrong).next().map(str::len)
        );
    }
}

#[test]
fn pages_are_well_formed_and_need_nothing_from_anywhere() {
    let one = page(&[example::run("ringline", 1)]).expect("one run");
    check_page(&one);
    assert!(!one.contains("VOID"));
    for wanted in
        ["latency by percentile", "Latency over time", "Offered and achieved", "CPU", "Memory", "99.9 %"]
    {
        assert!(one.contains(wanted), "{wanted}");
    }
    assert!(!one.contains("<h2>prepare</h2>"), "preparations are left out");
    let three = [example::run("ringline", 1), example::void_run("mosquitto", 2), example::run("ringline", 3)];
    let three = page(&three).expect("three runs");
    check_page(&three);
    assert!(three.contains("VOID: mosquitto") && three.contains("ringline (3)"));
    assert!(three.contains("0123456789ab") && three.contains("generator_busy (send)"));
}

#[test]
fn a_page_has_from_one_to_eight_runs() {
    let run = example::run("ringline", 1);
    assert_eq!(page(&[]), Err(TooManyRuns(0)));
    assert_eq!(page(&vec![run.clone(); 9]), Err(TooManyRuns(9)));
    check_page(&page(&vec![run; 8]).expect("eight runs"));
}

/// Adds something evil to every text of a result, keys of maps included; not to histograms and the plan's choices.
fn poison(value: &mut Value, key: &str, evil: &str) {
    match value {
        Value::String(text) => text.push_str(evil),
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, key, evil)),
        Value::Object(fields) => {
            let is_map = ["errors", "losses", "limit_profile", "counters"].contains(&key);
            let old = std::mem::take(fields);
            for (name, mut value) in old {
                let exempt = ["histograms", "lag", "plan"].contains(&name.as_str());
                if !exempt {
                    poison(&mut value, &name, evil);
                }
                fields.insert(if is_map { format!("{name}{evil}") } else { name }, value);
            }
        }
        _ => {}
    }
}

#[test]
fn no_text_of_a_result_becomes_markup() {
    let mut value = serde_json::to_value(example::void_run("ringline", 1)).expect("it serializes");
    poison(&mut value, "", "<b x='\">&\u{1b}");
    let mut run: RunResult = serde_json::from_value(value).expect("still a result");
    run.plan.name.push_str("<b x='\">&");
    run.plan.about.push_str("<b x='\">&");
    for phase in &mut run.plan.phases {
        phase.name.push_str("<b x='\">&");
    }
    let several = page(&[run.clone(), run.clone()]).expect("two runs");
    for page in [page(&[run]).expect("one run"), several] {
        check_page(&page);
        assert!(!page.contains("<b ") && !page.contains('\u{1b}'), "an unescaped text");
        assert!(page.matches("&lt;b x=&#39;&quot;&gt;&amp;").count() > 30, "the texts are shown");
    }
}

#[test]
fn empty_phases_and_no_connections_make_a_page_too() {
    let mut run = example::run("ringline", 1);
    let empty = PhaseResult {
        name: "empty".into(),
        preparation: false,
        measured_s: 0.0,
        streams: Vec::new(),
        connections: Default::default(),
        seconds: Vec::new(),
        generators: Vec::new(),
        servers: Vec::new(),
        machine: Default::default(),
        recovery: String::new(),
        returns: Default::default(),
        losses: Default::default(),
        faults: Vec::new(),
    };
    let mut silent = run.phases[1].clone();
    silent.name = "silent".into();
    silent.measured_s = 0.0;
    for second in &mut silent.seconds {
        *second = crate::report::results::Second { second: second.second, ..Default::default() };
    }
    for stream in &mut silent.streams {
        (stream.succeeded, stream.offered_rate, stream.achieved_rate) = (0, 0.0, 0.0);
        stream.histograms.values_mut().for_each(String::clear);
    }
    run.phases = vec![empty.clone(), silent];
    let page_of = page(&[run.clone()]).expect("one run");
    check_page(&page_of);
    assert!(page_of.contains("Nothing to show."));
    let mut other = run.clone();
    other.phases = vec![empty];
    check_page(&page(&[run, other]).expect("one of them lacks a phase"));
    let mut none = example::run("ringline", 1);
    (none.phases, none.ledger) = (Vec::new(), None);
    none.plan.phases.clear();
    check_page(&page(&[none]).expect("no phase"));
}

#[test]
fn long_phases_are_thinned_without_hiding_the_worst() {
    let mut run = example::run("ringline", 1);
    let phase = &mut run.phases[1];
    let template = phase.seconds[0].clone();
    phase.seconds = (0..86_400)
        .map(|second| crate::report::results::Second {
            second,
            max_us: if second == 40_001 { 987_654 } else { 50 },
            ..template.clone()
        })
        .collect();
    let plots = charts::plots(&[Part { run: "x", number: 0, phase, warm_up_s: 0.0 }]);
    let latency = plots.iter().find(|plot| plot.title == "Latency over time").expect("there is one");
    let max = latency.lines.iter().find(|line| line.name == "max").expect("three lines");
    assert!(max.points.len() <= 400, "{}", max.points.len());
    assert!(max.points.iter().any(|(_, ms)| *ms == 987.654));
    assert!(page(&[run]).expect("one run").len() < 2_000_000);
}
