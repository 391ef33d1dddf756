//! Users who signed in, all asking at once about the same ids.

use super::stage::{ALICE, BOB, CALLBACK, Stage};
use crate::users::{datadog, interleave};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn interleaved_users_of_mode_oauth_see_their_own_data_only() {
    let stage = Stage::over(datadog().await.api).await;
    // One program that both use: what tells them apart is the grant.
    let client = stage.client("A client", CALLBACK).await;
    let mut bearers = Vec::new();
    for user in [ALICE, BOB] {
        let tokens = stage.signed_in(&client, user).await;
        bearers.push(format!("Bearer {}", tokens.access));
    }
    let [alice, bob] = [0, 1].map(|user| [("Authorization", bearers[user].as_str())]);
    interleave(&stage.at("/mcp"), &alice, &bob).await;
}
