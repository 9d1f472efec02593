//! stub
pub fn app_fingerprint(_app: &super::App) -> String {
    todo!()
}
