//! A cluster of three masters on the loopback interface.

use super::{Client, Model, Server, cmd, eventually, free_port, text};

/// Hash slots of every cluster.
const SLOTS: usize = 16_384;

/// Three servers that share the slots.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of their slots.
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// Starts it with these models on every node.
    #[track_caller]
    pub fn with(models: &[Model]) -> Self {
        // Without its own option the second port would be the first plus 10000, which may not exist.
        let buses: [String; 3] = std::array::from_fn(|_| free_port().to_string());
        let nodes = buses.each_ref().map(|bus| {
            Server::configured(
                &[],
                &["--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "15000"],
            )
        });
        let mut clients: Vec<Client> = nodes.iter().map(Server::client).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let share = |number: usize| SLOTS * number / nodes.len();
            client.ok(&cmd!["CLUSTER", "ADDSLOTSRANGE", share(number), share(number + 1) - 1]);
            client.ok(&cmd!["CLUSTER", "SET-CONFIG-EPOCH", number + 1]);
            if number > 0 {
                client.ok(&cmd!["CLUSTER", "MEET", "127.0.0.1", nodes[0].port, &buses[0]]);
            }
        }
        eventually("the cluster is complete", || {
            clients.iter_mut().all(|client| {
                let info = client.text(&cmd!["CLUSTER", "INFO"]);
                ["cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"]
                    .iter()
                    .all(|line| info.contains(line))
            })
        });
        // Not earlier: a client that waits is turned away as long as the cluster is incomplete.
        for client in &mut clients {
            for model in models {
                client.ok(&model.load());
            }
        }
        Self { nodes: nodes.into() }
    }

    /// A replica of a node, with these models, up to date.
    #[track_caller]
    pub fn replica_of(&self, node: usize, models: &[Model]) -> Server {
        let bus = free_port().to_string();
        let replica = Server::configured(&[], &["--cluster-enabled", "yes", "--cluster-port", &bus]);
        let mut client = replica.client();
        let mut master = self.nodes[node].client();
        let their_bus = master.ok(&cmd!["CONFIG", "GET", "cluster-port"]);
        let their_bus = text(super::field(&their_bus, "cluster-port"));
        client.ok(&cmd!["CLUSTER", "MEET", "127.0.0.1", self.nodes[node].port, their_bus]);
        let id = master.text(&cmd!["CLUSTER", "MYID"]);
        eventually("the nodes know each other", || {
            client.text(&cmd!["CLUSTER", "INFO"]).contains("cluster_known_nodes:4")
        });
        client.ok(&cmd!["CLUSTER", "REPLICATE", id]);
        eventually("the replica is connected", || {
            client.text(&cmd!["INFO", "replication"]).contains("master_link_status:up")
                && client.text(&cmd!["CLUSTER", "INFO"]).contains("cluster_state:ok")
        });
        for model in models {
            client.ok(&model.load());
        }
        replica
    }

    /// A connection that sends each command to the node that has its keys.
    #[track_caller]
    pub fn client(&self) -> redis::cluster::ClusterConnection {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}/", node.port)).collect();
        let client = redis::cluster::ClusterClientBuilder::new(addresses)
            .connection_timeout(super::PATIENCE)
            .response_timeout(super::PATIENCE);
        client.build().unwrap().get_connection().unwrap()
    }

    /// The number of the node that has the slot of `key`.
    #[track_caller]
    pub fn node_of(&self, key: &str) -> usize {
        let slot = super::int(&self.nodes[0].client().ok(&cmd!["CLUSTER", "KEYSLOT", key]));
        usize::try_from(slot).unwrap() * self.nodes.len() / SLOTS
    }

    /// The keys of each node.
    #[track_caller]
    pub fn keys(&self) -> Vec<Vec<String>> {
        let of = |node: &Server| match node.client().ok(&cmd!["KEYS", "*"]) {
            redis::Value::Array(keys) => keys.iter().map(|key| text(key).to_owned()).collect(),
            other => panic!("not an array: {other:?}"),
        };
        self.nodes.iter().map(of).collect()
    }
}
