//! Containers join and leave the network; host ports come and go. Every step can be repeated, and a failed one is
//! undone. Each container has one change at a time, and no container waits for another one's change.

use std::os::fd::AsFd;

use crate::{
    Attachment, Error, HostPort, Network, Outside, Result, links::Veth, netns, options::check_container_id,
    ruleset::host_link,
};

impl Network {
    /// Makes the network of a container and publishes its ports. Called again for the same id, it returns what exists,
    /// with the published ports changed to `host_ports`. A future that was dropped half way is
    /// cleaned up by the next call for the same id.
    ///
    /// # Errors
    /// If no address is free, a host port is taken, or the kernel refuses; nothing is left behind then.
    pub async fn attach(&self, id: &str, host_ports: &[HostPort]) -> Result<Attachment> {
        check_container_id(id)?;
        let _turn = self.turns.take(id).await;
        if let Ok(existing) = self.attached(id) {
            return self.set_ports(existing, host_ports).await;
        }
        self.remove_leftover(id).await?;
        let container = self.plan(id)?;
        let made = self.make(&container, host_ports).await;
        if made.is_err()
            && let Err(error) = self.unmake(&container).await
        {
            tracing::warn!(container = id, %error, "network of a failed attach is not wholly removed");
        }
        made
    }

    /// Removes the network of a container; its address and ports are free afterwards. Unknown ids are fine.
    ///
    /// # Errors
    /// If the kernel refuses; the container stays listed then, so that it can be tried again.
    pub async fn detach(&self, id: &str) -> Result<()> {
        check_container_id(id)?;
        let _turn = self.turns.take(id).await;
        match self.attached(id) {
            Ok(container) => self.unmake(&container).await,
            Err(_) => self.remove_leftover(id).await,
        }
    }

    fn attached(&self, id: &str) -> Result<Attachment> {
        self.state().containers.get(id).cloned().ok_or_else(|| Error::NotAttached { id: id.to_owned() })
    }

    /// A record without a listed container shows that an attach was interrupted.
    async fn remove_leftover(&self, id: &str) -> Result<()> {
        match self.records.container(id) {
            Some(leftover) => self.unmake(&leftover).await,
            None => Ok(()),
        }
    }

    /// Publishes one more port of an attached container.
    ///
    /// # Errors
    /// If the container is unknown or the port taken.
    pub async fn publish(&self, id: &str, port: HostPort) -> Result<()> {
        let _turn = self.turns.take(id).await;
        let container = self.attached(id)?;
        let mut ports = container.host_ports.clone();
        ports.push(port);
        self.set_ports(container, &ports).await.map(drop)
    }

    /// Withdraws a published port; does nothing if it is not published.
    ///
    /// # Errors
    /// If the container is unknown or nft fails.
    pub async fn unpublish(&self, id: &str, port: HostPort) -> Result<()> {
        let _turn = self.turns.take(id).await;
        let container = self.attached(id)?;
        let ports: Vec<HostPort> = container.host_ports.iter().copied().filter(|held| *held != port).collect();
        self.set_ports(container, &ports).await.map(drop)
    }

    /// Sets how much an attached container may exchange with the outside world. Open connections that are no longer
    /// allowed end with their next packet.
    ///
    /// # Errors
    /// If the container is unknown or nft fails.
    pub async fn set_outside(&self, id: &str, outside: Outside) -> Result<()> {
        let _turn = self.turns.take(id).await;
        let container = self.attached(id)?;
        self.change_outside(container, outside).await
    }

    async fn change_outside(&self, mut container: Attachment, outside: Outside) -> Result<()> {
        let text = self.ruleset.change_outside(container.ip, container.outside, outside);
        container.outside = outside;
        self.change_rules("change what a container has to do with the world outside", &text, &container).await?;
        self.records.put_container(&container)
    }

    fn plan(&self, id: &str) -> Result<Attachment> {
        let mut state = self.state();
        let ip = state.pool.take()?;
        let number = state.pool.number(ip).unwrap_or_default();
        Ok(Attachment {
            id: id.to_owned(),
            netns_path: self.options.netns_path(id),
            ip,
            prefix_len: self.subnet().prefix_len(),
            gateway: self.gateway(),
            host_link: host_link(&self.options.instance, number),
            mtu_bytes: self.mtu_bytes,
            host_ports: Vec::new(),
            outside: Outside::default(),
        })
    }

    async fn make(&self, container: &Attachment, ports: &[HostPort]) -> Result<Attachment> {
        // Recorded first, so that whatever the next steps leave behind after a crash can be found.
        self.records.put_container(container)?;
        let inside = netns::create(container.netns_path.clone()).await?;
        let veth = Veth {
            host_link: &container.host_link,
            bridge: self.bridge,
            netns: inside.file.as_fd(),
            ip: container.ip,
            mtu_bytes: self.mtu_bytes,
        };
        self.links.create_veth(&veth).await?;
        self.links.isolate_port(&container.host_link, self.bridge).await?;
        inside.links.configure_inside(container.ip, container.prefix_len, container.gateway).await?;
        self.links.wait_up(&container.host_link).await?;
        self.links.wait_up(&self.ruleset.bridge).await?;
        self.state().containers.insert(container.id.clone(), container.clone());
        self.set_ports(container.clone(), ports).await
    }

    async fn unmake(&self, container: &Attachment) -> Result<()> {
        if let Ok(listed) = self.attached(&container.id) {
            let bare = self.set_ports(listed, &[]).await?;
            // The address will be given to another container.
            self.change_outside(bare, Outside::default()).await?;
        }
        self.links.delete(&container.host_link).await?;
        netns::unpin(&container.netns_path)?;
        self.records.remove_container(&container.id)?;
        let mut state = self.state();
        state.containers.remove(&container.id);
        state.pool.release(container.ip);
        Ok(())
    }

    /// Changes the published ports by the difference; all or none.
    async fn set_ports(&self, mut container: Attachment, wanted: &[HostPort]) -> Result<Attachment> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let removed: Vec<HostPort> = missing_in(&container.host_ports, &wanted);
        let added: Vec<HostPort> = missing_in(&wanted, &container.host_ports);
        if removed.is_empty() && added.is_empty() {
            return Ok(container);
        }
        let claim = self.ports.claim(&container.id, &removed, &added)?;
        let text = self.ruleset.unpublish(&removed) + &self.ruleset.publish(container.ip, &added);
        container.host_ports = wanted;
        self.change_or_load_rules("change published ports", &text, &container).await?;
        claim.keep();
        self.ports.give_back(&removed, &added);
        self.records.put_container(&container)?;
        Ok(container)
    }
}

fn missing_in(ports: &[HostPort], others: &[HostPort]) -> Vec<HostPort> {
    ports.iter().copied().filter(|port| !others.contains(port)).collect()
}
