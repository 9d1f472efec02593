-- One step of a pass over the keys: what stands in the lists and sets among them, bounded here
-- already, since a client cannot ask for a part of an element.
--
-- ARGV: the cursor, the pattern, keys a step, the beginnings of the two kinds of keys.
-- Returns the next cursor, then three values for each key: its kind, its host, what it holds.
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local frontend, dead = ARGV[4], ARGV[5]
local found = { step[1] }

local function tell(kind, host, content)
  local last = #found
  found[last + 1], found[last + 2], found[last + 3] = kind, host, content
end

local function host_of(key, beginning)
  return string.sub(key, 1, #beginning) == beginning and string.sub(key, #beginning + 1)
end

for _, key in ipairs(step[2]) do
  local host, marked = host_of(key, frontend), host_of(key, dead)
  if host and #host > 300 then
    tell('long', string.sub(host, 1, 300), 0)
  elseif host then
    local list = redis.pcall('LRANGE', key, 0, 65)
    if not list.err then
      for i, element in ipairs(list) do
        if #element > 1024 then list[i] = string.sub(element, 1, 1025) end
      end
      tell('list', host, list)
    elseif string.find(list.err, 'WRONGTYPE', 1, true) then
      tell('other', host, 0)
    else
      return list
    end
  elseif marked and #marked <= 300 then
    local marks = { redis.call('PTTL', key) }
    for index = 0, 63 do
      if redis.pcall('SISMEMBER', key, index) == 1 then marks[#marks + 1] = index end
    end
    tell('dead', marked, marks)
  end
end
return found
