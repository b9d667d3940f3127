//! The client verbs: each talks to a server through its documented door, and prints what it says.

mod copy;
mod dataset;
mod disk;
mod doctor;
mod folder;
mod fsck;
mod load;
mod names;
mod persist;
mod policy;
mod relocate;
mod residence;
mod status;
mod transfer;
mod tree;
mod under;
mod user;

use crate::{
    args::{Cli, Disk, Door, User, Verb},
    connect,
    failure::{Failure, Outcome},
    output::Output,
};
use clap::CommandFactory;
use forebay_client::{Client, WirePath};

/// Runs any verb but `serve`.
pub(crate) async fn run(verb: Verb, door: &Door) -> Outcome {
    let mut output = Output::new(door.json);
    let outcome = dispatch(verb, door, &mut output).await;
    outcome.and(output.flush())
}

async fn dispatch(verb: Verb, door: &Door, output: &mut Output) -> Outcome {
    match verb {
        Verb::Serve(_) => Err(Failure::usage("serve is no client verb")),
        Verb::Put(put) => copy::put(put, door, output).await,
        Verb::Get(get) => copy::get(get, door, output).await,
        Verb::Cat(paths) => copy::cat(paths, door, output).await,
        Verb::Cp(cp) => copy::cp(cp, door, output).await,
        Verb::Ls(ls) => names::ls(ls, door, output).await,
        Verb::Stat(at) => names::stat(at, door, output).await,
        Verb::Mkdir(mkdir) => names::mkdir(mkdir, door, output).await,
        Verb::Mv(mv) => names::mv(mv, door, output).await,
        Verb::Rm(rm) => names::rm(rm, door, output).await,
        Verb::Status(status) => status::status(status, door, output).await,
        Verb::Persist(persist) => persist::persist(persist, door, output).await,
        Verb::Load(load) => load::load(load, door, output).await,
        Verb::Pin(pin) => residence::pin(pin, door, output).await,
        Verb::Unpin(at) => residence::act("unpin", at, door, output).await,
        Verb::Sync(at) => residence::act("sync", at, door, output).await,
        Verb::Free(at) => residence::free(at, door, output).await,
        Verb::Policy(policy) => policy::policy(policy, door, output).await,
        Verb::Dataset(dataset) => dataset::dataset(dataset, door, output).await,
        Verb::Under(under) => under::under(under, door, output).await,
        Verb::Doctor => doctor::doctor(door, output).await,
        Verb::Fsck(fsck) => fsck::fsck(&fsck, output).await,
        Verb::Disk(Disk::Remove(remove)) => disk::remove(remove, output).await,
        Verb::User(User::Add(add)) => user::add(&add, output),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut std::io::stdout());
            Ok(())
        }
        Verb::Mount(mount) => folder::mount(mount, door, output).await,
        Verb::Unmount(unmount) => folder::unmount(unmount, door, output).await,
        Verb::Cluster(_) => Err(Failure::absent("cluster")),
    }
}

/// A path and a connection to the server it lies on.
async fn at(door: &Door, text: &str) -> Outcome<(Client, WirePath)> {
    let (door, path) = connect::locate(door, text)?;
    Ok((connect::connect(&door).await?, path))
}

/// Two paths on one server.
async fn between(door: &Door, from: &str, to: &str) -> Outcome<(Client, WirePath, WirePath)> {
    let (first, from) = connect::locate(door, from)?;
    let (second, to) = connect::locate(door, to)?;
    if first.addr != second.addr {
        return Err(Failure::usage("both paths must lie on one server"));
    }
    Ok((connect::connect(&first).await?, from, to))
}
