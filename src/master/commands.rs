//! What the pool has decided, done. Decides nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal as Number;
use nix::unistd::Pid;
use uring_ring::{Errno, Op, SendBuffer};

use super::birth::{self, Birth};
use super::children::{Child, Life};
use super::end::End;
use super::handle::Wish;
use super::notice::{Cause, Fate, Notice};
use super::pool::{Command, Event, Pool, Rules, Verdict};
use super::upgrade::NewMaster;
use super::{Master, Ready, Tag, cause_of};
use crate::config::{Accept, Checked, PoolConfig, WorkerCount};
use crate::process::channel::{self, Message};
use crate::process::listen::Listener;
use crate::process::notify::{self, Notice as Word};
use crate::process::parcel::{DESCRIPTORS_MAX, Parcel};
use crate::process::pid_file::PidFile;
use crate::process::scoreboard::State;
use crate::process::signals::Signal;
use crate::process::sys::{self, Fork};

impl Master<'_> {
    pub(super) fn act(
        &mut self,
        command: Command,
        pool: &mut Pool,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        match command {
            Command::Fork(life) => events.extend(self.fork(life)),
            Command::Send(life, message) => self.send(life, &message),
            Command::TellAlone(life) => self.send(life, &Message::Alone),
            Command::Kill(life) => self.children.signal(life, Number::SIGKILL),
            Command::Examine(life) => self.examine(life),
            Command::Serve(life) => self.on_serving(life),
            Command::Retire(life) => self.on_leaving(life),
            Command::Adopt { worker, by } => self.adopt(worker, by),
            Command::TakeBack { worker } => self.take_back(worker),
            Command::ReportReady => self.report_ready(),
            Command::ReadSettings => events.extend(self.read_settings()),
            Command::SettleReload => self.settle_reload(pool, now),
            Command::DropReload => self.drop_reload(),
            Command::StartUpgrade => events.extend(self.start_upgrade()),
            Command::KillUpgrade => {
                if let Some(new) = self.heir.take() {
                    new.kill();
                }
            }
            Command::StopAccepting => self.dispatching.stop(&mut self.ring),
            Command::Tell(notice) => self.tell(&notice),
            Command::TellOf(life, fate) => self.tell_of(life, &fate),
            Command::Finish(verdict) => {
                if verdict == Verdict::Upgraded {
                    self.listeners.leave_files();
                }
                self.finishing = Some(verdict);
            }
        }
    }

    /// Starts a worker; that it failed to is an event of its own.
    fn fork(&mut self, life: Life) -> Option<Event> {
        let error = self.try_fork(life).err()?;
        let errno = Errno::new(error.raw_os_error().unwrap_or(libc::EAGAIN));
        Some(Event::WorkerEnded(life, End::NotForked(errno)))
    }

    fn try_fork(&mut self, life: Life) -> io::Result<()> {
        let (channel, its_channel) = channel::pair()?;
        let (passing, passing_far) = channel::pair()?;
        let worker = life.worker;
        let listeners = match (&self.next, self.accept) {
            (_, Accept::Dispatch) => Vec::new(),
            (Some((_, listeners)), _) if listeners.workers() > worker => {
                listeners.of_worker(worker)?
            }
            _ => self.listeners.of_worker(worker)?,
        };
        let slot = |listener: &Listener| {
            let slots = self.steering.as_ref()?.slots();
            slots.get(listener.slot?)
        };
        let slots = listeners.iter().map(slot).collect();
        let companies = listeners.iter().map(|listener| listener.company).collect();
        let its_passing = passing_far.as_fd().try_clone_to_owned()?;
        let bell = self.bell.as_fd().try_clone_to_owned()?;
        let core = self.cpus.core_of(worker);
        let master = Pid::this();
        let no_page = || io::Error::from_raw_os_error(libc::EAGAIN);
        let page = self.scoreboard.claim(worker, SystemTime::now()).ok_or_else(no_page)?;
        let forked = sys::fork().inspect_err(|_| page.on_end(State::Failed))?;
        match forked {
            Fork::Child => {
                let mut pools = [&channel, &passing, &passing_far].map(AsRawFd::as_raw_fd).to_vec();
                pools.extend(self.children.descriptors());
                let foreign = self.foreign.iter().copied().filter(|fd| !pools.contains(fd));
                let birth = Birth {
                    worker_id: worker,
                    core,
                    channel: its_channel,
                    passing: its_passing,
                    bell,
                    limit: self.limit,
                    listeners: listeners.into_iter().map(|listener| listener.socket).collect(),
                    companies,
                    slots,
                    scoreboard: self.scoreboard,
                    page,
                    features: self.features,
                    identity: self.config.identity,
                    no_new_privs: self.config.no_new_privs,
                    dumps_core: self.config.core_bytes_max.is_some(),
                    master,
                    foreign: foreign.collect(),
                };
                birth::become_worker(birth, &|seat| self.around.work(seat))
            }
            Fork::Parent { child: pid } => {
                let message_fd = channel.as_raw_fd();
                let closed_before = page.traffic.connections_closed.read();
                let child = Child {
                    pid,
                    channel,
                    passing,
                    passing_far: Some(passing_far),
                    page,
                    closed_before,
                    end: None,
                    is_heard: false,
                    is_emptied: false,
                    is_parked: false,
                };
                self.ring.push(Op::WaitChild { pid: pid.as_raw() }, Tag::Ended(life));
                self.push_read(message_fd, self.limit.read_buffer(), Tag::Message(life));
                self.receive_from(life, child.passing.as_raw_fd());
                self.children.insert(life, child);
                Ok(())
            }
        }
    }

    pub(super) fn send(&mut self, life: Life, message: &Message) {
        let Some(child) = self.children.get(life) else { return };
        let fd = child.channel.as_raw_fd();
        match self.limit.encode(message) {
            Ok(packet) => {
                self.ring.push(Op::Send { fd, buffer: SendBuffer::new(packet) }, Tag::Told);
            }
            Err(error) => log::error!("cannot send a message to {}: {error}", self.name_of(life)),
        }
    }

    fn on_serving(&mut self, life: Life) {
        self.serving.insert(life.worker, life);
        self.steer(life.worker, true);
        let weight = self.config.weights.get(life.worker).copied().unwrap_or(1);
        self.dispatching.on_serving(life, weight);
    }

    fn on_leaving(&mut self, life: Life) {
        if self.serving.get(&life.worker) == Some(&life) {
            self.serving.remove(&life.worker);
            self.steer(life.worker, false);
        }
        self.dispatching.on_leaving(life);
    }

    fn adopt(&mut self, worker: usize, by: Life) {
        let sockets = match self.listeners.adopt(worker, by.worker) {
            Ok(sockets) => sockets,
            Err(error) => return log::error!("cannot lend worker {worker}'s sockets: {error}"),
        };
        let Some(child) = self.children.get(by).filter(|_| !sockets.is_empty()) else { return };
        let payload = Parcel::Listeners.encode();
        let fd = child.passing.as_raw_fd();
        self.ring.push(Op::SendFds { fd, payload, fds: sockets, wait: true }, Tag::Lent(by));
    }

    fn take_back(&mut self, worker: usize) {
        let Some(by) = self.listeners.take_back(worker) else { return };
        let holders = self.children.iter().filter(|(life, _)| life.worker == by);
        for life in holders.map(|(life, _)| life).collect::<Vec<_>>() {
            self.send(life, &Message::ListenersBack);
        }
    }

    fn report_ready(&mut self) {
        let addresses = self.listeners.addresses();
        let workers = self.listeners.workers();
        self.handle.set_running(true);
        if let Some(old) = &self.predecessor {
            old.say_ready(workers, self.limit, &mut self.ring);
            self.scoreboard.pool().upgrades.add_among_others(1);
            let replaces = u32::try_from(old.pid.as_raw()).ok();
            let pid_file = self.config.pid_file.as_deref();
            match pid_file.map(|path| PidFile::create(path, replaces)).transpose() {
                Ok(pid_file) => self.pid_file = pid_file,
                Err(error) => log::error!("{error}"),
            }
        }
        let status = format!("{workers} workers serve");
        let own = Word::MainPid(process::id());
        self.notifier.tell(&[Word::Ready, own, Word::Status(&status)]);
        self.around.on_ready(&Ready { addresses: &addresses, workers, accept: self.accept });
    }

    /// Reads the settings, and prepares the sockets that they need. What is wrong with them
    /// changes nothing.
    fn read_settings(&mut self) -> Option<Event> {
        self.begin_reload();
        let config = match self.around.read_settings() {
            Ok(config) => config,
            Err(reason) => {
                log::error!("the settings can't be used, and nothing changes: {reason}");
                self.end_reload();
                return None;
            }
        };
        self.prepare(config)
    }

    fn prepare(&mut self, config: Checked<PoolConfig>) -> Option<Event> {
        let workers = self.cpus.worker_count(config.workers);
        let prepared = if config.accept == self.config.accept {
            self.listeners.renewed(&config, workers).map_err(|error| error.to_string())
        } else {
            Err("`accept` can't change by a reload: stop and start, or upgrade".to_owned())
        };
        match prepared {
            Ok(listeners) => {
                if let Some(steering) = &mut self.steering {
                    let slots = steering.slots().len();
                    for group in listeners.groups().filter(|group| group.len() <= slots) {
                        if let Err(error) = steering.attach(&group) {
                            log::warn!("new sockets get connections by hash: {error}");
                        }
                    }
                }
                self.next = Some((config, listeners));
                Some(Event::Reload { workers })
            }
            Err(reason) => {
                log::error!("the settings can't be used, and nothing changes: {reason}");
                self.around.settle_settings(false);
                self.end_reload();
                None
            }
        }
    }

    fn settle_reload(&mut self, pool: &mut Pool, now: Instant) {
        self.around.settle_settings(true);
        self.end_reload();
        let Some((config, listeners)) = self.next.take() else { return };
        if self.accept == Accept::Dispatch && listeners.addresses() != self.listeners.addresses() {
            match listeners.all() {
                Ok(sockets) => self.dispatching.listen(sockets, &mut self.ring),
                Err(error) => log::error!("cannot listen on what is new: {error}"),
            }
        }
        pool.set_rules(Rules::of(&config));
        self.watch.set_timeout(config.hang_timeout, now);
        self.scoreboard.pool().workers.set(listeners.workers() as u64);
        self.scoreboard.pool().reloads.add_among_others(1);
        (self.config, self.listeners) = (config, listeners);
    }

    fn drop_reload(&mut self) {
        self.next = None;
        self.around.settle_settings(false);
        self.end_reload();
    }

    fn begin_reload(&self) {
        self.handle.set_reload_requested(true);
        self.notifier.tell(&[Word::Reloading(notify::monotonic()), Word::Status("reloading")]);
    }

    fn end_reload(&self) {
        self.handle.set_reload_requested(false);
        self.notifier.tell(&[Word::Ready, Word::Status("serving")]);
    }

    fn start_upgrade(&mut self) -> Option<Event> {
        if process::id() == 1 {
            return Some(Event::UpgradeFailed(Cause::IsInit));
        }
        match self.program.start(&self.listeners, &self.memory) {
            Ok(new) => {
                // What steers goes on until the new master replaces it; but a socket can't have two.
                self.steering = None;
                log::info!("upgrading: the new master has pid {}", new.pid);
                new.begin(self.limit, &mut self.ring);
                self.heir = Some(new);
                None
            }
            Err(error) => Some(Event::UpgradeFailed(cause_of(&error))),
        }
    }

    /// What somebody wishes by a handle.
    pub(super) fn fulfil(&mut self, wish: Wish, events: &mut Vec<Event>) {
        match wish {
            Wish::Stop => {
                self.handle.set_shutdown_requested();
                events.push(Event::Signal(Signal::Stop { name: "PoolHandle::stop" }));
            }
            Wish::Reload => {
                events.push(Event::Signal(Signal::Reload { name: "PoolHandle::reload" }));
            }
            Wish::Scale(workers) => {
                self.begin_reload();
                let mut config = self.config.clone().into_inner();
                config.workers = match workers {
                    0 => WorkerCount::Auto,
                    count => WorkerCount::Fixed(count),
                };
                let config = config.validate().expect("only a checked number has changed");
                events.extend(self.prepare(config));
            }
            Wish::Send(to, payload) => {
                let message = Message::User { payload };
                let lives: Vec<Life> = self.children.iter().map(|(life, _)| life).collect();
                for life in lives.into_iter().filter(|life| to.is_none_or(|id| id == life.worker)) {
                    self.send(life, &message);
                }
            }
            Wish::OnSignal(number, handler) => {
                self.on_signal.retain(|(known, _)| *known != number);
                let Some(handler) = handler else { return };
                match self.signals.add(number) {
                    Ok(()) => self.on_signal.push((number, handler)),
                    Err(error) => log::error!("cannot listen to {number}: {error}"),
                }
            }
        }
    }

    /// Has a worker that hangs write down where.
    fn examine(&mut self, life: Life) {
        if let Some(child) = self.children.get(life).filter(|child| child.end.is_none()) {
            let _gone_already = sys::ask_for_stack(child.pid);
        }
    }

    fn tell(&mut self, notice: &Notice) {
        if let Notice::Stopping { .. } = notice {
            self.handle.set_shutdown_requested();
            self.notifier.tell(&[Word::Stopping]);
        }
        log::log!(notice.level(), "{notice}");
    }

    fn tell_of(&mut self, life: Life, fate: &Fate) {
        log::log!(fate.level(), "{} {fate}", self.name_of(life));
    }

    /// Whether there are descriptors for what is handed over: one parcel on each line, at least.
    pub(super) fn has_room(&self) -> bool {
        let for_heir = self.heir.as_ref().map_or(0, NewMaster::held);
        self.dispatching.has_room(for_heir)
    }

    /// Goes on to receive where that had to wait for room.
    pub(super) fn receive_parked(&mut self, now: Instant) {
        if !self.has_room() {
            return;
        }
        for (life, fd) in self.children.unpark(now) {
            self.receive_from(life, fd);
        }
        if let Some(old) = self.predecessor.as_mut().filter(|old| old.is_parked) {
            old.is_parked = false;
            old.receive(&mut self.ring);
        }
    }

    /// Waits for what a worker hands over.
    pub(super) fn receive_from(&mut self, life: Life, fd: RawFd) {
        let op = Op::RecvFds {
            fd,
            payload: Parcel::read_buffer(),
            fds_max: DESCRIPTORS_MAX,
            wait: true,
        };
        self.ring.push(op, Tag::Arrived(life));
    }
}
