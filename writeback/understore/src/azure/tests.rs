//! Against an emulator, or the service itself, when `FOREBAY_TEST_AZURE_URL` names it; else these pass at once and say so.

use crate::trials::Trial;

const TRIAL: Trial = Trial {
    variable: "FOREBAY_TEST_AZURE_URL",
    writes: ("PUT", "/k"),
    completes: ("PUT", "comp=blocklist"),
};

#[tokio::test]
async fn azure_passes_the_conformance_suite() {
    TRIAL.conforms().await;
}

#[tokio::test]
async fn azure_faults_before_the_effect_leave_nothing() {
    TRIAL.faults_before_the_effect_leave_nothing().await;
}

#[tokio::test]
async fn azure_after_an_unclear_answer_the_token_tells() {
    TRIAL.after_an_unclear_answer_the_token_tells().await;
}

#[tokio::test]
async fn azure_a_short_or_stopped_read_is_never_taken_for_whole() {
    TRIAL.a_short_or_stopped_read_is_never_taken_for_whole().await;
}

#[tokio::test]
async fn azure_many_parts_become_one_object() {
    TRIAL.many_parts_and_many_names().await;
}
