"""What runs inside Redis, atomically: Lua over two keys.

``KEYS[1]`` is a session: a hash whose fields are its facts, and ``""`` for its history, so
that it expires, is evicted and is forgotten as one. ``KEYS[2]`` is its tenant's index: a
sorted set of the names of its sessions, by the microsecond of their last use. Those that have
expired are in it still: they are the oldest, and the first to make room.

``ARGV[1]`` and ``ARGV[2]`` are the ttl in milliseconds and the sessions that a tenant may have,
for all but FORGET.
"""

_USE = """
local function use()
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('ZREM', KEYS[2], KEYS[1])
    return
  end
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  redis.call('ZADD', KEYS[2], string.format('%.0f', now), KEYS[1])
  -- A bound that was lowered is reached over many calls: none may take long.
  local excess = math.min(redis.call('ZCARD', KEYS[2]) - ARGV[2], 100)
  if excess > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
      redis.call('DEL', oldest)
      redis.call('ZREM', KEYS[2], oldest)
    end
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
"""

# ARGV[3], ARGV[4]: most fields, most bytes of a history. Gives the facts and the history.
READ = (
    _USE
    + """
use()
local fields = redis.call('HLEN', KEYS[1])
local bytes = redis.call('HSTRLEN', KEYS[1], '')
if fields > tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then
  return redis.error_reply('a session of ' .. fields .. ' fields and a history of ' .. bytes
    .. ' bytes; expected at most ' .. ARGV[3] .. ' and ' .. ARGV[4])
end
return {redis.call('HKEYS', KEYS[1]), redis.call('HGET', KEYS[1], '')}
"""
)

# ARGV[3]: most facts. ARGV[4]: how many of the names that follow are revoked; the others are
# granted. Gives the facts, or how many there would be if that is too many.
UPDATE = (
    _USE
    + """
local last_revoked = 4 + ARGV[4]
local total = redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], '')
for i = 5, #ARGV do
  local held = redis.call('HEXISTS', KEYS[1], ARGV[i])
  total = total + (i <= last_revoked and -held or 1 - held)
end
if total > tonumber(ARGV[3]) then
  return total
end
for i = 5, #ARGV do
  if i <= last_revoked then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], '')
  end
end
use()
return redis.call('HKEYS', KEYS[1])
"""
)

# ARGV[3], ARGV[4]: the old and the new history. Gives 1 if it was the old one, else 0.
REPLACE_HISTORY = (
    _USE
    + """
if (redis.call('HGET', KEYS[1], '') or '') ~= ARGV[3] then
  use()
  return 0
end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], '')
else
  redis.call('HSET', KEYS[1], '', ARGV[4])
end
use()
return 1
"""
)

FORGET = """
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], KEYS[1])
return 1
"""
