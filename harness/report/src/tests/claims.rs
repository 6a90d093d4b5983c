//! The verdicts of `verify-claims` in each format.

use crate::{ClaimsFormat, render_claims};
use analysis::Claims;
use analysis::scenario::Scenario;

fn claims(scenario: &Scenario) -> Claims {
    let (_, store, _place) = scenario.stored();
    let run = store.run(scenario.start.id.as_str()).unwrap();
    Claims::build(&store, &[run]).unwrap()
}

/// Two networks on a board with a meter. The pipeline of the first one is hardly faster than a single processor.
fn mixed() -> Claims {
    let mut scenario = Scenario::sound();
    scenario.slow_down(2, 1.7);
    claims(&scenario.metered(1500.0, |place, _| if place % 4 < 2 { 3000.0 } else { 4400.0 }))
}

#[test]
fn verdicts_are_shown_with_every_baseline() {
    insta::assert_snapshot!(render_claims(&mixed(), ClaimsFormat::Terminal));
    insta::assert_snapshot!(render_claims(&mixed(), ClaimsFormat::Markdown));
}

#[test]
fn inconclusive_verdicts_have_a_reason() {
    insta::assert_snapshot!(render_claims(&claims(&Scenario::small()), ClaimsFormat::Terminal));
}

#[test]
fn json_has_exactly_the_fields_of_the_schema() {
    let json: serde_json::Value = serde_json::from_str(&render_claims(&mixed(), ClaimsFormat::Json)).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&crate::schema::<Claims>()).unwrap();
    let names = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&json), names(&schema["properties"]));
    let claim = &json["claims"][0];
    let network = &claim["networks"][0];
    for (part, definition) in [
        (&json["runs"][0], "ClaimRun"),
        (claim, "Claim"),
        (network, "ClaimOnNetwork"),
        (&network["comparisons"][0], "ClaimComparison"),
        (&network["comparisons"][0]["figure"], "Interval"),
    ] {
        assert_eq!(names(part), names(&schema["$defs"][definition]["properties"]), "{definition}");
    }
    let verdicts: Vec<&str> =
        json["claims"].as_array().unwrap().iter().filter_map(|claim| claim["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["holds", "does_not_hold", "does_not_hold"], "{json}");
}
