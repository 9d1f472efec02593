-- One step of a pass over the keys: what stands in the lists and sets among them, bounded here
-- already, since a client cannot ask for a part of an element. Lists that say what the client knows
-- already are not told again.
--
-- ARGV: the cursor, the pattern, keys a step, the beginnings of the two kinds of keys, the digest of
-- what the client knows of this step's lists.
-- Returns the next cursor, the digest of the lists, the lists, the sets. Of a list there are three
-- values: its kind, its host, what it holds; 0 stands for lists that are known. Of a set there are
-- two: its host, and an array of its time to live and the indexes in it.
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local frontend, dead = ARGV[4], ARGV[5]
local lists, sets, count = {}, {}, 0
-- Looked up once and not for every key.
local call, pcall, sub = redis.call, redis.pcall, string.sub

local function tell(kind, host, content)
  lists[count + 1], lists[count + 2], lists[count + 3] = kind, host, content
  count = count + 3
end

local function host_of(key, beginning)
  return sub(key, 1, #beginning) == beginning and sub(key, #beginning + 1)
end

-- The indexes in a set, which may hold anything else as well.
local function marks_in(key)
  local marks = { call('PTTL', key) }
  local size = pcall('SCARD', key)
  if type(size) ~= 'number' then return marks end
  if size <= 64 then
    for _, member in ipairs(call('SMEMBERS', key)) do
      local index = #member <= 2 and tonumber(member)
      if index and index >= 0 and index < 64 and tostring(index) == member then
        marks[#marks + 1] = index
      end
    end
  else
    for index = 0, 63 do
      if call('SISMEMBER', key, index) == 1 then marks[#marks + 1] = index end
    end
  end
  return marks
end

for _, key in ipairs(step[2]) do
  local host = host_of(key, frontend)
  if host and #host > 300 then
    tell('long', sub(host, 1, 300), 0)
  elseif host then
    local list = pcall('LRANGE', key, 0, 65)
    if not list.err then
      for i = 1, #list do
        if #list[i] > 1024 then list[i] = sub(list[i], 1, 1025) end
      end
      tell('list', host, list)
    elseif string.find(list.err, 'WRONGTYPE', 1, true) then
      tell('other', host, 0)
    else
      return list
    end
  else
    local marked = host_of(key, dead)
    if marked and #marked <= 300 then
      sets[#sets + 1] = marked
      sets[#sets + 1] = marks_in(key)
    end
  end
end

-- The lists in a form that no other lists have.
local digest = redis.sha1hex(cmsgpack.pack(lists))
return { step[1], digest, digest == ARGV[6] and 0 or lists, sets }
