CREATE TABLE IF NOT EXISTS hubbub_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- contiguous_seq: no number up to it is missing without a row in hubbub_gaps.
-- cut_seq: retention has deleted the entries up to it.
CREATE TABLE IF NOT EXISTS hubbub_rooms (
    no INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    contiguous_seq INTEGER NOT NULL DEFAULT 0,
    cut_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

-- after_seq: the last number before the epoch. ended_seq: the last number up to which the epoch's
-- numbers mean the entries of the archive; NULL while it goes on. run: of a lone node, else 0.
CREATE TABLE IF NOT EXISTS hubbub_epochs (
    room_no INTEGER NOT NULL,
    epoch_no INTEGER NOT NULL,
    name TEXT NOT NULL,
    after_seq INTEGER NOT NULL,
    ended_seq INTEGER,
    run INTEGER NOT NULL,
    PRIMARY KEY (room_no, epoch_no),
    UNIQUE (room_no, name)
) STRICT, WITHOUT ROWID;

-- Ranges of numbers that are lost.
CREATE TABLE IF NOT EXISTS hubbub_gaps (
    room_no INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    PRIMARY KEY (room_no, first_seq)
) STRICT, WITHOUT ROWID;

-- The runs of a lone node. ended: 1 if every entry that was appended in the run is archived, else 0.
CREATE TABLE IF NOT EXISTS hubbub_runs (
    no INTEGER NOT NULL PRIMARY KEY,
    ended INTEGER NOT NULL
) STRICT;
