//! A slot on its way from node to node, and a client that follows what nodes say about it.

use redis::{Cmd, Value};

use super::{Client, Cluster, PATIENCE, Refusal, Server, array, cmd, eventually, int, text};

/// The slot of an index, at one of the nodes of a cluster.
pub struct Slot<'a> {
    cluster: &'a Cluster,
    number: i64,
    /// The node that has it.
    pub at: usize,
}

impl<'a> Slot<'a> {
    /// That of `key`, before it was ever moved.
    #[track_caller]
    pub fn of(cluster: &'a Cluster, key: &str) -> Self {
        let at = cluster.node_of(key);
        let number = int(&cluster.nodes[at].client().ok(&cmd!["CLUSTER", "KEYSLOT", key]));
        Self { cluster, number, at }
    }

    pub fn server(&self) -> &'a Server {
        &self.cluster.nodes[self.at]
    }

    /// Begins to move it to the node with this number.
    #[track_caller]
    pub fn begin(&self, to: usize) {
        let [mut from, mut target] = [self.at, to].map(|node| self.cluster.nodes[node].client());
        let [from_id, target_id] = [&mut from, &mut target].map(|client| client.text(&cmd!["CLUSTER", "MYID"]));
        target.ok(&cmd!["CLUSTER", "SETSLOT", self.number, "IMPORTING", from_id]);
        from.ok(&cmd!["CLUSTER", "SETSLOT", self.number, "MIGRATING", target_id]);
    }

    /// The keys that are still here.
    #[track_caller]
    pub fn keys(&self) -> Vec<String> {
        let keys = self.server().client().ok(&cmd!["CLUSTER", "GETKEYSINSLOT", self.number, 10_000]);
        array(&keys).iter().map(|key| text(key).to_owned()).collect()
    }

    /// Moves a key, if it is still there.
    #[track_caller]
    pub fn carry(&self, key: &str, to: usize) {
        let port = self.cluster.nodes[to].port;
        let patience = i64::try_from(PATIENCE.as_millis()).unwrap();
        self.server().client().ok(&cmd!["MIGRATE", "127.0.0.1", port, key, 0, patience]);
    }

    /// Moves all keys that are still here, and with them the slot.
    #[track_caller]
    pub fn finish(&mut self, to: usize) {
        for key in self.keys() {
            self.carry(&key, to);
        }
        let id = self.cluster.nodes[to].client().text(&cmd!["CLUSTER", "MYID"]);
        // First the one that gets it, as redis-cli does.
        let others = (0..self.cluster.nodes.len()).filter(|&node| node != to);
        for node in std::iter::once(to).chain(others) {
            self.cluster.nodes[node].client().ok(&cmd!["CLUSTER", "SETSLOT", self.number, "NODE", &id]);
        }
        self.at = to;
    }

    /// What a node says to send a client to another one, after `MOVED` or `ASK`.
    pub fn redirection(&self, to: usize) -> String {
        format!("{} 127.0.0.1:{}", self.number, self.cluster.nodes[to].port)
    }
}

/// A client that does what nodes tell it to, until a command is answered.
pub struct Follower {
    nodes: Vec<(u16, Client)>,
    at: usize,
    /// How often it was told what, in the order MOVED, ASK, TRYAGAIN.
    pub told: [u64; 3],
}

impl Follower {
    #[track_caller]
    pub fn new(cluster: &Cluster) -> Self {
        let nodes = cluster.nodes.iter().map(|node| (node.port, node.client())).collect();
        Self { nodes, at: 0, told: [0; 3] }
    }

    /// The answer to a command. `attempted` is called after every attempt.
    #[track_caller]
    pub fn call(&mut self, command: &Cmd, attempted: impl Fn()) -> Result<Value, Refusal> {
        let mut answer = None;
        let mut asking = None;
        eventually("a node answers", || {
            let node = asking.unwrap_or(self.at);
            let client = &mut self.nodes[node].1;
            if asking.take().is_some() {
                client.ok(&cmd!["ASKING"]);
            }
            let reply = client.call(command);
            attempted();
            match &reply {
                Err(refusal) if refusal.code == "MOVED" => {
                    self.told[0] += 1;
                    self.at = self.named(&refusal.text);
                }
                Err(refusal) if refusal.code == "ASK" => {
                    self.told[1] += 1;
                    asking = Some(self.named(&refusal.text));
                }
                Err(refusal) if refusal.code == "TRYAGAIN" => self.told[2] += 1,
                _ => answer = Some(reply),
            }
            answer.is_some()
        });
        answer.unwrap()
    }

    #[track_caller]
    fn named(&self, redirection: &str) -> usize {
        let port = redirection.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let node = self.nodes.iter().position(|(known, _)| Some(*known) == port);
        node.unwrap_or_else(|| panic!("sent to nowhere: {redirection}"))
    }
}
