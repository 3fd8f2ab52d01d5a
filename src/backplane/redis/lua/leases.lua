-- Shared by the scripts about nodes' leases and the whole deployment, whose keys lie in one partition.
--
-- L                    sorted set of incarnations by the end of their lease
-- D                    sorted set of condemned incarnations, by the time at which they were
--                      condemned: their heartbeats are refused
-- B                    the time of the last heartbeat of any node
-- V                    the version of the layout of all data with the deployment's prefix
-- A                    the id of the archive behind all logs with the deployment's prefix
-- I                    the id of the deployment
-- claim:<incarnation>  the incarnation that reaps this one at present; expires
local LEASES, CONDEMNED, LAST_BEAT, LAYOUT, ARCHIVE, CLAIM = 'L', 'D', 'B', 'V', 'A', 'claim:'
local DEPLOYMENT = 'I'
