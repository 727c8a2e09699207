//! What the pool has decided, done. Decides nothing.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process;
use std::ptr;
use std::time::Instant;

use nix::sys::signal::Signal as Number;
use nix::unistd::Pid;
use uring_ring::{Op, SendBuffer};

use super::birth::{self, Birth};
use super::children::{Child, Life};
use super::end::End;
use super::handle::Wish;
use super::notice::{Cause, Fate, Notice};
use super::pool::{Command, Event, Pool, Verdict, Wanted};
use super::reload::Next;
use super::upgrade::NewMaster;
use super::{ESTATES_MAX, Master, Ready, Tag, cause_of};
use crate::config::Accept;
use crate::process::channel::{self, Limit, Message};
use crate::process::clock::Moment;
use crate::process::listen::Listener;
use crate::process::notify::Notice as Word;
use crate::process::outbox::{Booked, Outbox};
use crate::process::parcel::{DESCRIPTORS_MAX, Parcel};
use crate::process::pid_file::PidFile;
use crate::process::scoreboard::{State, WorkerPage};
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
            Command::Fork(life) => events.extend(self.fork(life, false, now)),
            Command::ForkNext(life) => events.extend(self.fork(life, true, now)),
            Command::Send(life, message) => self.send(life, &message),
            Command::TellAlone(life) => self.send(life, &Message::Alone),
            Command::Kill(life) => self.children.signal(life, Number::SIGKILL),
            Command::Examine(life) => self.examine(life),
            Command::Serve(life) => self.on_serving(life),
            Command::Retire(life) => self.on_leaving(life),
            Command::Adopt { worker, by } => self.adopt(worker, by),
            Command::TakeBack { worker } => self.take_back(worker),
            Command::ReportReady => self.report_ready(now),
            Command::ReadSettings(wanted) => events.push(self.prepare_reload(wanted)),
            Command::SettleReload => self.settle_reload(pool, now),
            Command::DropReload => self.drop_reload(),
            Command::StartUpgrade => events.extend(self.start_upgrade()),
            Command::OfferUpgrade => self.offer_upgrade(),
            Command::StopUpgrade => self.signal_heir(Number::SIGTERM),
            Command::KillUpgrade => self.signal_heir(Number::SIGKILL),
            Command::ForwardReload(wanted) => self.forward_reload(wanted),
            Command::Resume => self.resume(now),
            Command::StopAccepting => self.dispatching.stop(&mut self.ring),
            Command::CloseListeners => self.close_listeners(),
            Command::Tell(notice) => self.tell(&notice),
            Command::TellOf(life, fate) => self.tell_of(life, &fate),
            Command::Finish(verdict) => {
                let is_upgraded = verdict == Verdict::Upgraded;
                if is_upgraded {
                    self.listeners.leave_files();
                }
                self.finish_by = is_upgraded.then_some(now + ESTATES_MAX);
                self.finishing = Some(verdict);
            }
        }
    }

    /// Starts a worker; that it failed to is an event of its own.
    fn fork(&mut self, life: Life, is_next: bool, now: Instant) -> Option<Event> {
        let end = self.try_fork(life, is_next, now).err()?;
        Some(Event::WorkerEnded(life, end))
    }

    fn claim_page(&self, worker: usize) -> Option<&'static WorkerPage> {
        self.scoreboard.claim(worker, Moment::now()).or_else(|| {
            self.release_dead();
            self.scoreboard.claim(worker, Moment::now())
        })
    }

    /// Frees the pages of other masters' workers that have ended. Whether there was any such worker.
    pub(super) fn release_dead(&self) -> bool {
        let is_own = |page: &WorkerPage| self.children.iter().any(|(_, it)| ptr::eq(it.page, page));
        self.scoreboard.release_dead(is_own)
    }

    fn try_fork(&mut self, life: Life, is_next: bool, now: Instant) -> Result<(), End> {
        let (channel, its_channel) = channel::pair()?;
        let (passing, passing_far) = channel::pair()?;
        let worker = life.worker;
        let (config, listeners) = match &self.next {
            Some(Next { config, listeners, .. }) if is_next => (config, listeners),
            _ => (&self.config, &self.listeners),
        };
        let limit = Limit(config.message_bytes_max);
        // A reload that is under way has changed those of this process.
        let limits = self.next.as_ref().filter(|_| !is_next).map(|next| next.limits);
        let (identity, no_new_privs) = (config.identity, config.no_new_privs);
        let dumps_core = config.core_bytes_max.is_some();
        let stop_timeout = config.stop_timeout;
        let listeners = match self.accept {
            Accept::Dispatch => Vec::new(),
            Accept::Shared | Accept::Steered => listeners.of_worker(worker)?,
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
        let page = self.claim_page(worker).ok_or(End::NoPage)?;
        let forked = sys::fork().inspect_err(|_| page.on_end(process::id(), State::Failed))?;
        match forked {
            Fork::Child => {
                let mut pools = [&channel, &passing, &passing_far].map(AsRawFd::as_raw_fd).to_vec();
                pools.extend(self.children.descriptors());
                let foreign = self.foreign.iter().filter(|fd| !pools.contains(fd));
                let birth = Birth {
                    worker_id: worker,
                    core,
                    channel: its_channel,
                    passing: its_passing,
                    bell,
                    limit,
                    listeners: listeners.into_iter().map(|listener| listener.socket).collect(),
                    companies,
                    is_held: !self.is_in_charge,
                    slots,
                    page,
                    features: self.features,
                    identity,
                    no_new_privs,
                    dumps_core,
                    limits,
                    master,
                    stop_timeout,
                    signals: self.on_signal.iter().map(|(number, _)| *number).collect(),
                    foreign: foreign.collect(),
                };
                birth::become_worker(birth, &|seat| self.around.work(seat, is_next))
            }
            Fork::Parent { child: pid } => {
                page.on_fork(pid.as_raw().unsigned_abs());
                page.asks.closings.set(self.dispatching.waits_for_room.into());
                self.watch.handle_work(now);
                let message_fd = channel.as_raw_fd();
                let closed_before = page.traffic.connections_closed.read();
                let child = Child {
                    pid,
                    channel,
                    limit,
                    outbox: Outbox::default(),
                    passing,
                    passing_far: Some(passing_far),
                    page,
                    closed_before,
                    end: None,
                    is_unwatched: false,
                    is_heard: false,
                    is_emptied: false,
                    is_parked: false,
                };
                self.ring.push(Op::WaitChild { pid: pid.as_raw() }, Tag::Ended(life));
                self.push_read(message_fd, limit.read_buffer(), Tag::Message(life));
                self.receive_from(life, child.passing.as_raw_fd());
                self.children.insert(life, child);
                Ok(())
            }
        }
    }

    pub(super) fn send(&mut self, life: Life, message: &Message) {
        let Some(child) = self.children.get_mut(life) else { return };
        let packet = match child.limit.encode(message) {
            Ok(packet) => packet,
            Err(error) => {
                let name = self.name_of(life);
                return log::error!("cannot send a message to {name}: {error}");
            }
        };
        let booked = if let Message::User { .. } = message {
            child.outbox.offer(packet)
        } else {
            child.outbox.push(packet);
            Booked::Waits
        };
        match booked {
            Booked::Waits => return self.flush_outbox(life),
            Booked::RefusedFirst => {
                log::warn!("{} reads none of its messages: dropping new ones", self.name_of(life));
            }
            Booked::Refused => {}
        }
        self.scoreboard.pool().dropped_messages.add_among_others(1);
    }

    pub(super) fn flush_outbox(&mut self, life: Life) {
        let Some(child) = self.children.get_mut(life) else { return };
        if let Some(packet) = child.outbox.poll() {
            let fd = child.channel.as_raw_fd();
            self.ring.push(Op::Send { fd, buffer: SendBuffer::new(packet) }, Tag::Said(life));
        }
    }

    fn on_serving(&mut self, life: Life) {
        self.serving.insert(life.worker, life);
        self.show_serving(life, true);
        self.steer(life.worker, true);
        let weight = self.config.weights.get(life.worker).copied().unwrap_or(1);
        self.dispatching.on_serving(life, weight);
    }

    fn on_leaving(&mut self, life: Life) {
        if self.serving.get(&life.worker) == Some(&life) {
            self.serving.remove(&life.worker);
            self.show_serving(life, false);
            self.steer(life.worker, false);
        }
        self.dispatching.on_leaving(life);
    }

    pub(super) fn show_serving(&self, life: Life, serves: bool) {
        if let Some(child) = self.children.get(life) {
            child.page.set_serving(serves && self.is_in_charge);
        }
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

    fn report_ready(&mut self, now: Instant) {
        match &mut self.predecessor {
            Some(old) if !old.is_gone => {
                old.say_ready(self.listeners.workers(), self.limit, &mut self.ring);
            }
            Some(_) => self.take_over(now),
            None => self.owes_announcement = true,
        }
    }

    /// Goes on where the old master has ended, or is about to.
    pub(super) fn take_over(&mut self, now: Instant) {
        let Some(old) = &mut self.predecessor else { return };
        // What the settings don't name any more goes with it.
        let left = mem::take(&mut old.listeners);
        left.own_files();
        drop(left);
        let replaces = old.pid;
        self.take_charge_of(replaces, now);
        self.scoreboard.pool().upgrades.add_among_others(1);
        self.owes_announcement = true;
        if let Some(old) = self.predecessor.as_ref().filter(|old| !old.is_gone) {
            old.say(&Message::TakenOver, self.limit, &mut self.ring);
        }
    }

    /// Goes on after the new master has ended, although it had taken over.
    fn resume(&mut self, now: Instant) {
        let Some(heir) = self.lost_heir.take() else { return };
        (self.finishing, self.finish_by) = (None, None); // it may have been about to end
        match self.listeners.repaired(&self.config) {
            Ok(listeners) => self.listeners = listeners,
            Err(error) => log::error!("{error}"),
        }
        self.dispatching.resume();
        self.take_charge_of(heir, now);
        self.owes_announcement = true;
    }

    /// As [`take_charge`](Master::take_charge), also of the file that names the master.
    fn take_charge_of(&mut self, other: Pid, now: Instant) {
        if let Err(error) = self.take_charge(now) {
            log::error!("cannot listen on all addresses: {error}");
        }
        self.write_pid_file(Some(other));
    }

    /// As the settings say, instead of the one before; that of another process, if it `replaces` that.
    pub(super) fn write_pid_file(&mut self, replaces: Option<Pid>) {
        let path = self.config.pid_file.as_deref();
        if let (Some(old), Some(path)) = (&self.pid_file, path)
            && old.stands_at(path)
        {
            return; // nobody is to find it missing
        }
        self.pid_file = None; // it would remove a new one
        let replaces = replaces.and_then(|other| u32::try_from(other.as_raw()).ok());
        match path.map(|path| PidFile::create(path, replaces)).transpose() {
            Ok(pid_file) => self.pid_file = pid_file,
            Err(error) => log::error!("{error}"),
        }
    }

    /// Tells that this master serves, and how: not while it tries whether the kernel steers for it.
    pub(super) fn announce(&mut self) {
        if self.claim.is_some() || !mem::take(&mut self.owes_announcement) {
            return;
        }
        let addresses = self.listeners.addresses();
        let workers = self.listeners.workers();
        self.handle.set_running(true);
        let status = format!("{workers} workers serve");
        let own = Word::MainPid(process::id());
        self.notifier.tell(&[Word::Ready, own, Word::Status(&status)]);
        let ready = Ready { addresses: &addresses, workers, accept: self.accept };
        self.foreign.watch(|| self.around.on_ready(&ready));
    }

    /// Whoever came since the workers have looked is answered here; whoever comes later is refused by
    /// the kernel. What somebody else has bound or serves is his.
    fn close_listeners(&mut self) {
        let listeners = mem::take(&mut self.listeners);
        if !self.is_in_charge || listeners.are_activated() {
            return;
        }
        listeners.shut_door();
        match listeners.all() {
            Ok(sockets) => self.dispatching.empty(sockets, &mut self.ring),
            Err(error) => log::warn!("whoever waits at the listeners is not answered: {error}"),
        }
    }

    fn start_upgrade(&mut self) -> Option<Event> {
        if process::id() == 1 {
            return Some(Event::UpgradeFailed(Cause::IsInit));
        }
        self.upgrades += 1;
        match self.program.start(self.upgrades, &self.listeners, &self.memory) {
            Ok(new) => {
                log::info!("upgrading: the new master has pid {}", new.pid);
                new.begin(self.limit, &mut self.ring);
                self.heir = Some(new);
                None
            }
            Err(error) => Some(Event::UpgradeFailed(cause_of(&error))),
        }
    }

    fn offer_upgrade(&mut self) {
        if let Some(steering) = &mut self.steering {
            steering.let_go(); // a socket can't have two that steer
            self.claim = None;
        }
        if let Some(new) = &mut self.heir {
            new.say(&Message::TakeOver, self.limit, &mut self.ring);
        }
    }

    fn signal_heir(&self, signal: Number) {
        if let Some(new) = &self.heir {
            new.signal(signal);
        }
    }

    fn forward_reload(&mut self, Wanted { reads, workers }: Wanted) {
        if let Some(new) = &mut self.heir {
            new.say(&Message::Renew { reads, workers }, self.limit, &mut self.ring);
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
            Wish::Scale(workers) => events.push(Event::Scale { workers }),
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
            self.owes_announcement = false;
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
