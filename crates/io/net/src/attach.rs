//! Containers join and leave the network; host ports come and go. Every step can be repeated, a failed one is undone.

use std::os::fd::AsFd;

use crate::{
    Attachment, Error, HostPort, Network, Outside, Result,
    links::Veth,
    netns,
    network::{Reservation, State},
    nft,
    options::check_container_id,
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
        let mut state = self.state.lock().await;
        if let Some(existing) = state.containers.get(id).cloned() {
            return self.set_ports(&mut state, existing, host_ports).await;
        }
        self.remove_leftover(&mut state, id).await?;
        let container = self.plan(&mut state, id)?;
        let made = self.make(&mut state, &container, host_ports).await;
        if made.is_err()
            && let Err(error) = self.unmake(&mut state, &container).await
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
        let mut state = self.state.lock().await;
        match state.containers.get(id).cloned() {
            Some(container) => self.unmake(&mut state, &container).await,
            None => self.remove_leftover(&mut state, id).await,
        }
    }

    /// A record without a listed container tells of an attach that did not come to its end.
    async fn remove_leftover(&self, state: &mut State, id: &str) -> Result<()> {
        match state.records.container(id) {
            Some(leftover) => self.unmake(state, &leftover).await,
            None => Ok(()),
        }
    }

    /// Publishes one more port of an attached container.
    ///
    /// # Errors
    /// If the container is unknown or the port taken.
    pub async fn publish(&self, id: &str, port: HostPort) -> Result<()> {
        let mut state = self.state.lock().await;
        let container = attached(&state, id)?;
        let mut ports = container.host_ports.clone();
        ports.push(port);
        self.set_ports(&mut state, container, &ports).await.map(drop)
    }

    /// Withdraws a published port; one that is not published is fine.
    ///
    /// # Errors
    /// If the container is unknown or nft fails.
    pub async fn unpublish(&self, id: &str, port: HostPort) -> Result<()> {
        let mut state = self.state.lock().await;
        let container = attached(&state, id)?;
        let ports: Vec<HostPort> = container.host_ports.iter().copied().filter(|held| *held != port).collect();
        self.set_ports(&mut state, container, &ports).await.map(drop)
    }

    /// Lets an attached container have as much to do with the world outside as is said. Connections that stand and
    /// are no longer allowed end with the next packet.
    ///
    /// # Errors
    /// If the container is unknown or nft fails.
    pub async fn set_outside(&self, id: &str, outside: Outside) -> Result<()> {
        let mut state = self.state.lock().await;
        let container = attached(&state, id)?;
        self.change_outside(&mut state, container, outside).await
    }

    async fn change_outside(&self, state: &mut State, mut container: Attachment, outside: Outside) -> Result<()> {
        let text = self.ruleset.change_outside(container.ip, container.outside, outside);
        if !text.is_empty() {
            nft::apply("change what a container has to do with the world outside", &text).await?;
        }
        container.outside = outside;
        state.records.put_container(&container)?;
        state.containers.insert(container.id.clone(), container);
        Ok(())
    }

    fn plan(&self, state: &mut State, id: &str) -> Result<Attachment> {
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

    async fn make(&self, state: &mut State, container: &Attachment, ports: &[HostPort]) -> Result<Attachment> {
        // Recorded first: whatever the next steps leave behind after a crash can be found.
        state.records.put_container(container)?;
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
        state.containers.insert(container.id.clone(), container.clone());
        self.set_ports(state, container.clone(), ports).await
    }

    async fn unmake(&self, state: &mut State, container: &Attachment) -> Result<()> {
        if let Some(listed) = state.containers.get(&container.id).cloned() {
            let bare = self.set_ports(state, listed, &[]).await?;
            // The address will be another container's.
            self.change_outside(state, bare, Outside::default()).await?;
        }
        self.links.delete(&container.host_link).await?;
        netns::unpin(&container.netns_path)?;
        state.records.remove_container(&container.id)?;
        state.containers.remove(&container.id);
        state.pool.release(container.ip);
        Ok(())
    }

    /// Changes the published ports by the difference; all or none.
    async fn set_ports(&self, state: &mut State, mut container: Attachment, wanted: &[HostPort]) -> Result<Attachment> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let removed: Vec<HostPort> = missing_in(&container.host_ports, &wanted);
        let added: Vec<HostPort> = missing_in(&wanted, &container.host_ports);
        if removed.is_empty() && added.is_empty() {
            return Ok(container);
        }
        let reserved = reserve(state, &container.id, &removed, &added)?;
        let text = self.ruleset.unpublish(&removed) + &self.ruleset.publish(container.ip, &added);
        container.host_ports = wanted;
        if let Err(error) = nft::apply("change published ports", &text).await {
            tracing::warn!(%error, "the rules are not as they were left; loading them anew");
            self.load_rules_with(state, Some(&container)).await?;
        }
        for port in removed.iter().filter(|port| !added.iter().any(|other| same_host_port(other, port))) {
            state.reserved.remove(&(port.protocol, port.host_port));
        }
        for (port, reservation) in reserved {
            state.reserved.insert((port.protocol, port.host_port), reservation);
        }
        state.containers.insert(container.id.clone(), container.clone());
        state.records.put_container(&container)?;
        Ok(container)
    }
}

fn attached(state: &State, id: &str) -> Result<Attachment> {
    state.containers.get(id).cloned().ok_or_else(|| Error::NotAttached { id: id.to_owned() })
}

fn missing_in(ports: &[HostPort], others: &[HostPort]) -> Vec<HostPort> {
    ports.iter().copied().filter(|port| !others.contains(port)).collect()
}

fn same_host_port(a: &HostPort, b: &HostPort) -> bool {
    a.protocol == b.protocol && a.host_port == b.host_port
}

/// Sockets on the added ports. One that this container gives up in the same change keeps its socket.
fn reserve(
    state: &mut State,
    id: &str,
    removed: &[HostPort],
    added: &[HostPort],
) -> Result<Vec<(HostPort, Reservation)>> {
    let mut reserved = Vec::new();
    for (at, port) in added.iter().enumerate() {
        let twice = added[..at].iter().any(|other| same_host_port(other, port));
        let holder = holder(state, port).filter(|_| !removed.iter().any(|other| same_host_port(other, port)));
        if let Some(holder) = holder.or_else(|| twice.then(|| id.to_owned())) {
            let (host_port, protocol) = (port.host_port, port.protocol.name());
            return Err(Error::HostPortPublished { host_port, protocol, holder });
        }
        if !state.reserved.contains_key(&(port.protocol, port.host_port)) {
            reserved.push((*port, Reservation::take(port)?));
        }
    }
    Ok(reserved)
}

fn holder(state: &State, port: &HostPort) -> Option<String> {
    let holds = |held: &HostPort| same_host_port(held, port);
    state.containers.values().find(|container| container.host_ports.iter().any(holds)).map(|holder| holder.id.clone())
}
