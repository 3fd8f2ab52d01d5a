CREATE TABLE IF NOT EXISTS hubbub_meta (
    name VARBINARY(128) NOT NULL PRIMARY KEY,
    value MEDIUMBLOB NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- contiguous_seq: no number up to it is missing without a row in hubbub_gaps.
-- cut_seq: retention has deleted the entries up to it.
CREATE TABLE IF NOT EXISTS hubbub_rooms (
    no INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARBINARY(128) NOT NULL UNIQUE,
    contiguous_seq BIGINT NOT NULL DEFAULT 0,
    cut_seq BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- after_seq: the last number before the epoch. ended_seq: the last number up to which the epoch's
-- numbers mean the entries of the archive; NULL while it goes on. run: of a lone node, else 0.
CREATE TABLE IF NOT EXISTS hubbub_epochs (
    room_no INT NOT NULL,
    epoch_no INT NOT NULL,
    name VARBINARY(128) NOT NULL,
    after_seq BIGINT NOT NULL,
    ended_seq BIGINT,
    run BIGINT NOT NULL,
    PRIMARY KEY (room_no, epoch_no),
    UNIQUE (room_no, name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Ranges of numbers that are lost.
CREATE TABLE IF NOT EXISTS hubbub_gaps (
    room_no INT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    PRIMARY KEY (room_no, first_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The runs of a lone node. ended: 1 if every entry that was appended in the run is archived, else 0.
CREATE TABLE IF NOT EXISTS hubbub_runs (
    no BIGINT NOT NULL PRIMARY KEY,
    ended SMALLINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
