//! Where a hash slot of a cluster is, read from the reply of `CLUSTER NODES`.

/// What a node is called in a redirection: the setting `cluster-preferred-endpoint-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Its address.
    Ip,
    /// The name that it announces, `?` when it announces none.
    Hostname,
    /// Nothing: the client knows how it got here, and needs only the port.
    Unknown,
}

impl Endpoint {
    /// The value of the setting; the address for one that is not known.
    pub fn named(value: &[u8]) -> Self {
        match value {
            b"hostname" => Self::Hostname,
            b"unknown-endpoint" => Self::Unknown,
            _ => Self::Ip,
        }
    }
}

/// Where a slot is, for a node that may not answer for all of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this node, and it stays there.
    Here,
    /// At this node, on its way to the one at this address (`host:port`).
    Leaving(String),
    /// At the node with this address.
    Elsewhere(String),
    /// At none.
    Nowhere,
}

/// A line of the reply.
struct Node<'a> {
    id: &'a str,
    is_myself: bool,
    address: &'a str,
    slots: Vec<&'a str>,
}

/// Where `slot` is, in the reply of `CLUSTER NODES`.
pub fn place(nodes: &str, slot: u16, endpoint: Endpoint) -> Place {
    let nodes: Vec<Node<'_>> = nodes.lines().filter_map(Node::parse).collect();
    let Some(owner) = nodes.iter().find(|node| node.has(slot)) else { return Place::Nowhere };
    if !owner.is_myself {
        return Place::Elsewhere(owner.shown(endpoint));
    }
    let target = owner.target_of(slot).and_then(|id| nodes.iter().find(|node| node.id == id));
    target.map_or(Place::Here, |target| Place::Leaving(target.shown(endpoint)))
}

impl<'a> Node<'a> {
    /// `<id> <ip:port@cport[,hostname[,…]]> <flags> <master> <ping> <pong> <epoch> <link> <slot> …`
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
        let is_myself = flags.split(',').any(|flag| flag == "myself");
        Some(Self { id, is_myself, address, slots: words.skip(5).collect() })
    }

    /// `7`, `5-9`; in brackets stand slots that come or go, which are also among the others.
    fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        })
    }

    /// The id of the node to which a slot is on its way: `[7->-ID]`.
    fn target_of(&self, slot: u16) -> Option<&'a str> {
        self.slots.iter().find_map(|word| {
            let (number, id) = word.strip_prefix('[')?.strip_suffix(']')?.split_once("->-")?;
            (number.parse() == Ok(slot)).then_some(id)
        })
    }

    fn shown(&self, endpoint: Endpoint) -> String {
        let mut parts = self.address.split(',');
        let address = parts.next().unwrap_or_default();
        // Further words are `name=value`.
        let hostname = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
        let client = address.rsplit_once('@').map_or(address, |(client, _bus)| client);
        let (ip, port) = client.rsplit_once(':').unwrap_or((client, ""));
        let host = match endpoint {
            Endpoint::Ip => ip,
            Endpoint::Hostname => hostname.unwrap_or("?"),
            Endpoint::Unknown => "",
        };
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
aaa 10.0.0.1:7000@17000,one.example,shard-id=x myself,master - 0 0 1 connected 0-5 7 [7->-bbb] [9-<-bbb]
bbb ::1:7001@17001,two.example master - 0 1 2 connected 8-12
ccc 10.0.0.3:7002@17002 slave bbb 0 1 2 connected
ddd 10.0.0.4:7003@17003,,tls-port=1 master - 0 1 2 connected 20
";

    #[test]
    fn a_slot_is_here_or_on_its_way_or_elsewhere_or_nowhere() {
        let of = |slot| place(NODES, slot, Endpoint::Ip);
        assert_eq!([of(0), of(5)], [Place::Here, Place::Here]);
        assert_eq!(of(7), Place::Leaving("::1:7001".to_owned()));
        // One that comes here is still there.
        assert_eq!(of(9), Place::Elsewhere("::1:7001".to_owned()));
        assert_eq!([of(6), of(13), of(16_383)], [Place::Nowhere, Place::Nowhere, Place::Nowhere]);
        assert_eq!(place("", 7, Endpoint::Ip), Place::Nowhere);
    }

    #[test]
    fn a_node_is_called_as_the_setting_says() {
        let of = |slot, endpoint: &str| place(NODES, slot, Endpoint::named(endpoint.as_bytes()));
        let elsewhere = |address: &str| Place::Elsewhere(address.to_owned());
        assert_eq!(of(8, "hostname"), elsewhere("two.example:7001"));
        assert_eq!(of(20, "hostname"), elsewhere("?:7003"));
        assert_eq!(of(20, "unknown-endpoint"), elsewhere(":7003"));
        assert_eq!(of(20, "ip"), elsewhere("10.0.0.4:7003"));
    }
}
