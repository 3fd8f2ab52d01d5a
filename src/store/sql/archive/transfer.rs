//! Copying and checking an archive.

use async_trait::async_trait;
use uuid::Uuid;

use super::super::meta::{self, COPY_MARK, COPY_OF, DEPLOYMENT};
use super::{epochs, gaps, loaded, orphans, rooms, rows, runs, stored, tables};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::args;
use crate::store::{
    ArchiveIdentity, ArchiveTransfer, ArchivedEntry, DirectoryRow, Orphans, Result, RoomState,
    RunEnd,
};

#[async_trait]
impl ArchiveTransfer for SqlStore {
    async fn room_state(&self, room: &RoomId) -> Result<Option<RoomState>> {
        let room = room.clone();
        let read = self.db().read(move |conn| {
            let room = room.clone();
            Box::pin(async move { read_state(conn, &room).await })
        });
        read.await
    }

    async fn set_room_state(&self, room: &RoomId, state: &RoomState) -> Result<()> {
        let (room, state) = (room.clone(), state.clone());
        let write = self.db().transaction(move |conn| {
            let (room, state) = (room.clone(), state.clone());
            Box::pin(async move { write_state(conn, &room, &state).await })
        });
        write.await
    }

    async fn run_ends(&self) -> Result<Vec<RunEnd>> {
        const ENDS: &str = "SELECT CAST(no AS {bigint}), CAST(ended AS {bigint}) FROM hubbub_runs \
            WHERE no = (SELECT MAX(r.no) FROM hubbub_runs r) \
            OR no = (SELECT MAX(r.no) FROM hubbub_runs r WHERE r.ended = 0) ORDER BY no";
        let found: Vec<(i64, i64)> = self.db().all(ENDS, args![]).await?;
        let end = |(number, ended)| (loaded(number), ended != 0);
        Ok(found.into_iter().map(end).collect())
    }

    async fn set_mark(&self, mark: Option<Uuid>) -> Result<()> {
        let set = self
            .db()
            .transaction(move |conn| Box::pin(meta::replace_id(conn, COPY_MARK, mark)));
        set.await
    }

    async fn mark(&self) -> Result<Option<Uuid>> {
        self.db()
            .read(|conn| Box::pin(meta::find_id(conn, COPY_MARK)))
            .await
    }

    async fn begin_copy(&self, of: Uuid) -> Result<bool> {
        let begin = self
            .db()
            .transaction(move |conn| Box::pin(begin_copy(conn, of)));
        begin.await
    }

    async fn finish_copy(&self, of: Uuid, runs: &[RunEnd]) -> Result<()> {
        const FORGET_RUNS: &str = "DELETE FROM hubbub_runs";
        const ADD_RUN: &str = "INSERT INTO hubbub_runs (no, ended) VALUES (?, ?)";
        let runs = runs.to_vec();
        let finish = self.db().transaction(move |conn| {
            let runs = runs.clone();
            Box::pin(async move {
                conn.run(FORGET_RUNS, args![]).await?;
                for (number, has_ended) in runs {
                    let args = args![stored(number)?, i64::from(has_ended)];
                    conn.run(ADD_RUN, args).await?;
                }
                meta::replace_id(conn, DEPLOYMENT, Some(of)).await?;
                meta::replace_id(conn, COPY_OF, None).await
            })
        });
        finish.await
    }

    async fn identity(&self) -> Result<ArchiveIdentity> {
        let read = self.db().read(|conn| {
            Box::pin(async move {
                Ok(ArchiveIdentity {
                    copy_of: meta::find_id(conn, COPY_OF).await?,
                    id: meta::find_id(conn, DEPLOYMENT).await?,
                })
            })
        });
        read.await
    }

    async fn recorded_log(&self) -> Result<Option<String>> {
        let read = self.db().read(|conn| Box::pin(meta::find(conn, meta::LOG)));
        read.await
    }

    async fn record_log(&self, name: &str, replaced: Option<&str>) -> Result<bool> {
        runs::record_log(self.db(), name, replaced).await
    }

    async fn orphans(&self) -> Result<Vec<Orphans>> {
        orphans::find(self.db()).await
    }

    async fn ids(&self, from: Uuid, limit: usize) -> Result<Vec<Uuid>> {
        const IDS: &str = "SELECT id FROM hubbub_entries WHERE id >= ? ORDER BY id LIMIT ?";
        let found: Vec<(Uuid,)> = self.db().all(IDS, args![from, rows(limit)]).await?;
        Ok(found.into_iter().map(|(id,)| id).collect())
    }

    fn room_tables(&self) -> Vec<&'static str> {
        tables::names()
    }

    async fn room_page(
        &self,
        room: &RoomId,
        table: usize,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>> {
        tables::page(self.db(), room, table, after).await
    }

    async fn clear_room(&self, room: &RoomId) -> Result<()> {
        tables::clear(self.db(), room).await
    }

    async fn insert_in_room(
        &self,
        room: &RoomId,
        table: usize,
        rows: Vec<DirectoryRow>,
    ) -> Result<()> {
        tables::insert(self.db(), room, table, rows).await
    }

    async fn amend(&self, room: &RoomId, entries: &[ArchivedEntry]) -> Result<()> {
        tables::amend(self.db(), room, entries).await
    }
}

async fn read_state(conn: &mut Conn, room: &RoomId) -> Outcome<Option<RoomState>> {
    const ROOM: &str = "SELECT CAST(no AS {bigint}), contiguous_seq, cut_seq FROM hubbub_rooms \
        WHERE name = ?";
    let found: Option<(i64, i64, i64)> = conn.first(ROOM, args![room.as_str()]).await?;
    let Some((room_no, contiguous, cut)) = found else {
        return Ok(None);
    };
    let mut epochs = epochs::newest(conn, room_no, usize::MAX).await?;
    epochs.reverse();
    let lost = gaps::losses(conn, room_no).await?;
    Ok(Some(RoomState {
        contiguous: loaded(contiguous),
        cut: loaded(cut),
        epochs,
        lost: lost.into_iter().map(gaps::unsigned).collect(),
    }))
}

async fn write_state(conn: &mut Conn, room: &RoomId, state: &RoomState) -> Outcome<()> {
    const ROOM: &str = "UPDATE hubbub_rooms SET contiguous_seq = ?, cut_seq = ? WHERE no = ?";
    const FORGET_LOSSES: &str = "DELETE FROM hubbub_gaps WHERE room_no = ?";
    let room_no = rooms::lock_or_add(conn, room).await?.no;
    for epoch in &state.epochs {
        epochs::set(conn, room_no, epoch).await?;
    }
    conn.run(FORGET_LOSSES, args![room_no]).await?;
    for lost in &state.lost {
        let args = args![room_no, stored(*lost.start())?, stored(*lost.end())?];
        conn.run(gaps::INSERT, args).await?;
    }
    let args = args![stored(state.contiguous)?, stored(state.cut)?, room_no];
    conn.run(ROOM, args).await?;
    Ok(())
}

async fn begin_copy(conn: &mut Conn, of: Uuid) -> Outcome<bool> {
    const ROOMS: &str = "SELECT CAST(no AS {bigint}) FROM hubbub_rooms LIMIT 1";
    let copy_of = meta::find_id(conn, COPY_OF).await?;
    let room: Option<(i64,)> = conn.first(ROOMS, args![]).await?;
    let is_ours = match copy_of {
        Some(id) => id == of,
        None => room.is_none() || meta::find_id(conn, DEPLOYMENT).await? == Some(of),
    };
    if is_ours {
        meta::replace_id(conn, COPY_OF, Some(of)).await?;
    }
    Ok(is_ours)
}
