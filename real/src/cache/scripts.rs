//! What is done in one step at the server, so that nobody sees the half of it and no entry is left without an end: the scripts.
//!
//! Each deletes an entry of another type and then says `WRONGTYPE`, so that the next writer finds the way free. None uses a key
//! that it is not given.

/// A script: its place among those that every connection has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Sets fields of a hash. Keys: the hash, and an index to put it into, if any. Arguments: time to live in ms, the entry in
    /// the index, fields and values.
    Write,
    /// Replaces a hash unless its stamp is as new. Keys as above. Arguments: time to live in ms, the entry in the index, stamp,
    /// fields and values.
    /// Returns 1, or the stamp that stands there.
    Keep,
    /// Adds to a counter and returns the sum. Key: the counter. Arguments: time to live in ms, by how much.
    Increment,
    /// Places a member. Keys: the places, the ends. Arguments: time to live in ms, member, longitude, latitude.
    Place,
    /// Takes a member away and returns how many there were. Keys: the places, the ends. Argument: member.
    Leave,
    /// Searches. Keys: the places, the ends. Arguments: longitude, latitude, radius in m, at most how many.
    Near,
}

impl Script {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Write, Self::Keep, Self::Increment, Self::Place, Self::Leave, Self::Near];

    /// What the server is given.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Write => WRITE,
            Self::Keep => KEEP,
            Self::Increment => INCREMENT,
            Self::Place => PLACE,
            Self::Leave => LEAVE,
            Self::Near => NEAR,
        }
    }
}

const WRITE: &str = r"
local function foreign(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true)
end
local written = redis.pcall('HSET', KEYS[1], unpack(ARGV, 3))
if type(written) == 'table' and written.err then
  if foreign(written) then redis.call('UNLINK', KEYS[1]) end
  return written
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if KEYS[2] then
  if foreign(redis.pcall('SADD', KEYS[2], ARGV[2])) then
    redis.call('UNLINK', KEYS[2])
    redis.call('SADD', KEYS[2], ARGV[2])
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return 1
";

// Stamps are texts of one length whose order is that of what they mean: a number of Lua has only 53 bits. The first write is one
// that a server at its memory bound refuses; after another it would let the rest pass.
const KEEP: &str = r"
local stands = redis.pcall('HGET', KEYS[1], 'stamp')
if type(stands) == 'table' and stands.err then
  if string.find(stands.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', KEYS[1]) end
  return stands
end
if stands and #stands == 41 and string.match(stands, '^%d+%.%d+$') and stands >= ARGV[3] then
  return stands
end
redis.call('HSET', KEYS[1], 'stamp', ARGV[3])
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'stamp', ARGV[3], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
if KEYS[2] then
  local listed = redis.pcall('SADD', KEYS[2], ARGV[2])
  if type(listed) == 'table' and listed.err then
    redis.call('UNLINK', KEYS[2])
    redis.call('SADD', KEYS[2], ARGV[2])
  end
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return 1
";

// The sum is read as a text: it may have more than 53 bits.
const INCREMENT: &str = r"
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(sum) == 'table' and sum.err then
  if string.find(sum.err, 'WRONGTYPE', 1, true) or string.find(sum.err, 'not an integer', 1, true) then
    redis.call('UNLINK', KEYS[1])
    return redis.error_reply('WRONGTYPE it was no counter')
  end
  return sum
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('GET', KEYS[1])
";

const PLACE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function foreign(reply)
  if type(reply) ~= 'table' or not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', KEYS[1], KEYS[2]) end
  return true
end
local placed = redis.pcall('GEOADD', KEYS[1], ARGV[3], ARGV[4], ARGV[2])
if foreign(placed) then return placed end
local ends = redis.pcall('ZADD', KEYS[2], now + ARGV[1], ARGV[2])
if foreign(ends) then return ends end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
";

const LEAVE: &str = r"
local left = redis.pcall('ZREM', KEYS[1], ARGV[1])
if type(left) == 'table' and left.err then
  if string.find(left.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', KEYS[1], KEYS[2]) end
  return left
end
redis.pcall('ZREM', KEYS[2], ARGV[1])
return left
";

// Whose time is over is taken away first, so that the nearest of those who are left are the nearest of those who are present.
const NEAR: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function failed(reply)
  if type(reply) ~= 'table' or not reply.err then return false end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then redis.call('UNLINK', KEYS[1], KEYS[2]) end
  return true
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('UNLINK', KEYS[1])
  return {}
end
while true do
  local over = redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
  if failed(over) then return over end
  if #over == 0 then break end
  local removed = redis.pcall('ZREM', KEYS[1], unpack(over))
  if failed(removed) then return removed end
  redis.call('ZREM', KEYS[2], unpack(over))
end
local near = redis.pcall('GEOSEARCH', KEYS[1], 'FROMLONLAT', ARGV[1], ARGV[2], 'BYRADIUS', ARGV[3], 'm', 'ASC', 'COUNT', ARGV[4], 'WITHHASH')
failed(near)
return near
";
