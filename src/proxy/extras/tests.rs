use super::*;

#[test]
fn a_field_is_taken_off_a_head_whole() {
    let mut lines = b"HTTP/1.1 200 OK\r\nx-request-id: a\r\ncontent-type: x\r\nx-request-id: b\r\n".to_vec();
    cut_field(&mut lines, b"x-request-id");
    assert_eq!(lines, b"HTTP/1.1 200 OK\r\ncontent-type: x\r\n");
    let before = lines.clone();
    cut_field(&mut lines, b"content");
    assert_eq!(lines, before);
}
