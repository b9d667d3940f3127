//! Against an emulator, or the service itself, when `FOREBAY_TEST_GCS_URL` names it; else these pass at once and say so.

use crate::trials::Trial;

const TRIAL: Trial = Trial {
    variable: "FOREBAY_TEST_GCS_URL",
    writes: ("POST", "/upload/"),
    completes: ("POST", "/compose"),
};

#[tokio::test]
async fn gcs_passes_the_conformance_suite() {
    TRIAL.conforms().await;
}

#[tokio::test]
async fn gcs_faults_before_the_effect_leave_nothing() {
    TRIAL.faults_before_the_effect_leave_nothing().await;
}

#[tokio::test]
async fn gcs_after_an_unclear_answer_the_token_tells() {
    TRIAL.after_an_unclear_answer_the_token_tells().await;
}

#[tokio::test]
async fn gcs_a_short_or_stopped_read_is_never_taken_for_whole() {
    TRIAL.a_short_or_stopped_read_is_never_taken_for_whole().await;
}

#[tokio::test]
async fn gcs_many_parts_become_one_object() {
    TRIAL.many_parts_and_many_names().await;
}
