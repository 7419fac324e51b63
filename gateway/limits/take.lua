-- Takes from accounts that several nodes share: all of them, or none. One call, hence one moment.
--
-- KEYS    the accounts
-- ARGV    need, want, then for each account: how many limits, and for each of them: window, count, burst,
--         microseconds of the window (0: a quota), the number of the quota's day or month, seconds until that ends
-- Grants between `need` and `want` requests: what is wanted, as long as that leaves most of the rest to other nodes.
-- A negative `want` gives requests back.
-- Returns {granted, microseconds to wait, account that is short, its limit (both from 0), what is left of each limit}.
--
-- A window's level is kept in requests times microseconds of the window, so that the arithmetic is that of whole
-- numbers. Redis' clock rules windows. Every value expires: once it says no more than none would.

local SHARE = 4 -- no lease takes more than this part of what is left, beyond what is needed

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local need, want = tonumber(ARGV[1]), tonumber(ARGV[2])
local granted, wait, short_account, short_limit = want, 0, 0, 0
local accounts = {}
local next_argument = 3

for number, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local held = value and cmsgpack.unpack(value) or { at = now }
  local elapsed = math.max(0, now - held.at)
  local limits = {}
  for index = 1, tonumber(ARGV[next_argument]) do
    local at = next_argument + 1 + (index - 1) * 6
    local limit = {
      window = ARGV[at], count = tonumber(ARGV[at + 1]), burst = tonumber(ARGV[at + 2]),
      period = tonumber(ARGV[at + 3]), number = tonumber(ARGV[at + 4]), ends = tonumber(ARGV[at + 5]),
    }
    local level = held[limit.window] or 0
    limit.unit = limit.period
    if limit.period > 0 then
      level = math.max(0, level - elapsed * limit.count)
    else
      limit.unit = 1
      local known = held[limit.window .. '#'] or limit.number
      if known < limit.number then
        level = 0
      elseif known > limit.number then -- another node has seen midnight already
        limit.number = known
      end
    end
    limit.level = level
    if want > 0 then
      local room = limit.burst * limit.unit - level
      local left = math.floor(room / limit.unit)
      if level == 0 then left = math.max(left, need) end
      if left < need then
        local waits = limit.ends * 1000000
        if limit.period > 0 then
          waits = math.ceil((math.min(need, limit.burst) * limit.unit - room) / limit.count)
        end
        if waits >= wait then
          wait, short_account, short_limit = waits, number - 1, index - 1
        end
        granted = 0
      elseif granted > 0 then
        granted = math.min(granted, math.max(need, math.floor(left / SHARE)))
      end
    end
    limits[index] = limit
  end
  accounts[number] = limits
  next_argument = next_argument + 1 + #limits * 6
end

local answer = { granted, wait, short_account, short_limit }
for number, limits in ipairs(accounts) do
  local held = { at = now }
  local milliseconds = 0
  for _, limit in ipairs(limits) do
    limit.level = math.max(0, limit.level + granted * limit.unit)
    held[limit.window] = limit.level
    local lives = limit.ends * 1000 + 3600000 -- an hour more, for clocks that disagree about midnight
    if limit.period > 0 then
      lives = math.ceil(limit.level / limit.count / 1000) + 1000
    else
      held[limit.window .. '#'] = limit.number
    end
    milliseconds = math.max(milliseconds, lives)
    answer[#answer + 1] = math.max(0, math.floor((limit.burst * limit.unit - limit.level) / limit.unit))
  end
  if granted ~= 0 then
    redis.call('SET', KEYS[number], cmsgpack.pack(held), 'PX', string.format('%.0f', milliseconds))
  end
end
return answer
