//! `etcdserverpb.KV/Put` over one HTTP/2 connection.

use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// What is put, always.
const VALUE: [u8; 64] = [b'x'; 64];

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Puts {
    requests: SendRequest<Bytes>,
    uri: String,
}

impl Puts {
    /// The connection is driven by a task of this runtime.
    pub(super) async fn connect(host: IpAddr, port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect((host, port)).await.with_context(|| format!("{host}:{port}"))?;
        socket.set_nodelay(true)?;
        let (requests, connection) = h2::client::handshake(socket).await?;
        // how it ends is told by the puts that it had open
        drop(tokio::spawn(connection));
        Ok(Self { requests, uri: format!("http://{host}:{port}/etcdserverpb.KV/Put") })
    }

    /// One put, durable on a majority when it returns.
    pub(super) async fn put(&self, key: &str) -> anyhow::Result<()> {
        let request = Request::post(&self.uri).header("content-type", "application/grpc").header("te", "trailers").body(())?;
        let (response, mut body) = self.requests.clone().ready().await?.send_request(request, false)?;
        body.send_data(message(key.as_bytes())?, true)?;
        let response = response.await?;
        // an error may come in the head alone
        if response.headers().contains_key("grpc-status") {
            return judge(response.headers());
        }
        let mut answer = response.into_body();
        while let Some(piece) = answer.data().await {
            answer.flow_control().release_capacity(piece?.len())?;
        }
        judge(&answer.trailers().await?.context("an answer without a status")?)
    }
}

fn judge(headers: &HeaderMap) -> anyhow::Result<()> {
    let word = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?").to_owned();
    match word("grpc-status").as_str() {
        "0" => Ok(()),
        other => bail!("status {other}: {}", word("grpc-message")),
    }
}

/// A frame of gRPC (not compressed, its length) around a `PutRequest` of protobuf (1: key, 2: value).
fn message(key: &[u8]) -> anyhow::Result<Bytes> {
    ensure!(key.len() < 0x80 && VALUE.len() < 0x80, "a length of more than one byte");
    let len = 2 + key.len() + 2 + VALUE.len();
    let mut frame = Vec::with_capacity(5 + len);
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(len)?.to_be_bytes());
    for (field, bytes) in [(0x0a, key), (0x12, &VALUE)] {
        frame.extend_from_slice(&[field, u8::try_from(bytes.len())?]);
        frame.extend_from_slice(bytes);
    }
    Ok(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_wants_it() {
        let bytes = message(b"k1").unwrap();
        assert_eq!(bytes[..9], [0, 0, 0, 0, 70, 0x0a, 2, b'k', b'1']);
        assert_eq!((bytes[9], bytes[10], bytes.len()), (0x12, 64, 75));
        assert!(message(&[0; 128]).is_err());
    }

    #[test]
    fn a_status_is_judged() {
        let headers =
            |status: &str| [("grpc-status", status), ("grpc-message", "no leader")].map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
        assert!(judge(&HeaderMap::from_iter(headers("0"))).is_ok());
        assert_eq!(judge(&HeaderMap::from_iter(headers("14"))).unwrap_err().to_string(), "status 14: no leader");
        assert!(judge(&HeaderMap::new()).is_err());
    }
}
