//! Concurrent calls of signed-in users with the same ids.

use super::test_server::{ALICE, BOB, CALLBACK, TestServer};
use crate::users::{interleave, two_organisations};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn interleaved_oauth_users_see_their_own_data_only() {
    let server = TestServer::with_api(two_organisations().await.api).await;
    // Both users use one client; only their grants differ.
    let client = server.client("A client", CALLBACK).await;
    let mut bearers = Vec::new();
    for user in [ALICE, BOB] {
        let tokens = server.sign_in(&client, user).await;
        bearers.push(format!("Bearer {}", tokens.access));
    }
    let [alice, bob] = [0, 1].map(|user| [("Authorization", bearers[user].as_str())]);
    interleave(&server.at("/mcp"), &alice, &bob).await;
}
