//! The paths under a SockJS endpoint.

/// Longest name of a session, in bytes. Clients take eight letters, test suites a UUID.
const NAME_MAX: usize = 128;

/// What a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path<'a> {
    Greeting,
    Info,
    Iframe,
    /// A WebSocket without any framing.
    Raw,
    /// A transport of the session of that name.
    Session(&'a str, Transport),
}

/// How a session's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    Xhr,
    XhrSend,
    XhrStreaming,
    EventSource,
}

impl Transport {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "websocket" => Transport::WebSocket,
            "xhr" => Transport::Xhr,
            "xhr_send" => Transport::XhrSend,
            "xhr_streaming" => Transport::XhrStreaming,
            "eventsource" => Transport::EventSource,
            _ => return None,
        })
    }
}

impl<'a> Path<'a> {
    /// Reads what follows the endpoint's own path.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        match path {
            "" | "/" => return Some(Path::Greeting),
            "/info" => return Some(Path::Info),
            "/websocket" => return Some(Path::Raw),
            _ => {}
        }
        let path = path.strip_prefix('/')?;
        if let Some(version) = path.strip_prefix("iframe")
            && let Some(version) = version.strip_suffix(".html")
        {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
            return version.chars().all(plain).then_some(Path::Iframe);
        }
        let mut segments = path.split('/');
        let (server, session) = (segments.next()?, segments.next()?);
        let transport = Transport::parse(segments.next()?)?;
        let is_name = |name: &str| (1..=NAME_MAX).contains(&name.len()) && !name.contains('.');
        // The server's name is for balancers, and says nothing here.
        let fits = segments.next().is_none() && is_name(server) && is_name(session);
        fits.then_some(Path::Session(session, transport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check =
            |path: &str, want: Option<Path<'_>>| assert_eq!(Path::parse(path), want, "{path}");
        for greeting in ["", "/"] {
            check(greeting, Some(Path::Greeting));
        }
        check("/info", Some(Path::Info));
        check("/websocket", Some(Path::Raw));
        for iframe in [
            "/iframe.html",
            "/iframe-.html",
            "/iframe-0.1.2abc-dirty.2144.html",
        ] {
            check(iframe, Some(Path::Iframe));
        }
        check("/000/abc/xhr", Some(Path::Session("abc", Transport::Xhr)));
        check(
            "/a%20/_/websocket",
            Some(Path::Session("_", Transport::WebSocket)),
        );
        check(
            "/1/2/xhr_send",
            Some(Path::Session("2", Transport::XhrSend)),
        );
        check(
            "/1/2/eventsource",
            Some(Path::Session("2", Transport::EventSource)),
        );
        for bad in [
            "/a",
            "//",
            "/a/a",
            "/a/a/",
            "/a./a/xhr",
            "/a/a./xhr",
            "//a/xhr",
            "/a//xhr",
            "/a/a/xhr/",
            "/a/a/a/xhr",
            "/iframe",
            "/iframe.htm",
            "/IFRAME.html",
            "/iframe.HTML",
            "/iframe-/.html",
            "/a/a/jsonp",
            "info",
        ] {
            check(bad, None);
        }
    }
}
