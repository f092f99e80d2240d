//! The app's users: push tokens by user id, and the conditional clear of a dead token.

use secrecy::SecretString;

use super::StoreError;

/// What the app's database knows of one user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The query returned a row for this user.
    pub found: bool,
    /// Push tokens as they stand, each once, in the order returned.
    pub tokens: Vec<String>,
    /// Why nothing may be pushed to this user (opted out).
    pub skip_reason: Option<String>,
}

/// The app's database. A handle.
#[derive(Clone)]
pub struct Users {}

impl Users {
    /// Connects, with `query` and `clear` as configured.
    pub async fn open(_url: &SecretString, _query: &str, _clear: &str) -> Result<Users, StoreError> {
        todo!()
    }

    /// Looks up one user, in a batch with its neighbours.
    pub async fn look_up(&self, _user_id: &str) -> Result<User, StoreError> {
        todo!()
    }

    /// Clears `token` of `user_id` if it is still the same; returns whether it was.
    pub async fn clear(&self, _user_id: &str, _token: &str) -> Result<bool, StoreError> {
        todo!()
    }
}
