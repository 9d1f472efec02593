-- One step of a pass over the lists: what stands in them and in the sets of marks for their targets,
-- bounded here already, since a client cannot ask for a part of an element. Lists that say what the
-- client knows already are not told again.
--
-- ARGV: the cursor, the pattern, keys a step, the beginnings of the two kinds of keys, the digest of
-- what the client knows of this step's lists.
-- Returns the next cursor, the digest of the lists, the lists, the marks; the latter two packed into
-- a string each, in which a client has nothing to take apart that it does not want. Of a list there
-- are three values: its kind, its host, its elements; no bytes stand for lists that are known. Of
-- marks there are three: the host, their time to live in milliseconds, the indexes.
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local beginning, dead = #ARGV[4], ARGV[5]
local lists, marks, count, marked = {}, {}, 0, 0
-- Looked up once and not for every key.
local call, pcall, sub = redis.call, redis.pcall, string.sub

local function tell(kind, host, elements)
  lists[count + 1], lists[count + 2], lists[count + 3] = kind, host, elements
  count = count + 3
end

-- The indexes in the set of a host, which may hold anything else as well. More members than there
-- can be indexes are none: 65 stands for them.
local function tell_marks(host)
  local key = dead .. host
  local size = pcall('SCARD', key)
  if type(size) ~= 'number' or size == 0 then return end
  local time, indexes = pcall('PTTL', key), {}
  if type(time) ~= 'number' then return end
  if size > 64 then
    indexes[1] = '65'
  else
    for _, member in ipairs(call('SMEMBERS', key)) do
      local index = #member <= 2 and tonumber(member)
      if index and index >= 0 and index < 64 and tostring(index) == member then
        indexes[#indexes + 1] = member
      end
    end
  end
  marks[marked + 1], marks[marked + 2] = host, string.format('%d', time)
  marks[marked + 3] = table.concat(indexes, ' ')
  marked = marked + 3
end

-- Cuts elements off, and ends the list after the first target that is too long to be one.
local function cut(list)
  for i = 1, #list do
    local size = #list[i]
    if size > 1024 then list[i] = sub(list[i], 1, 1025) end
    if i > 1 and size > 128 then
      for beyond = #list, i + 1, -1 do list[beyond] = nil end
      return
    end
  end
end

for _, key in ipairs(step[2]) do
  local host = sub(key, beginning + 1)
  if #host > 300 then
    tell('long', sub(host, 1, 300), {})
  else
    local list = pcall('LRANGE', key, 0, 65)
    if not list.err then
      cut(list)
      tell('list', host, list)
      -- The only target of a list gets its requests in any case.
      if #list > 2 and #list <= 65 then tell_marks(host) end
    elseif string.find(list.err, 'WRONGTYPE', 1, true) then
      tell('other', host, {})
    else
      return list
    end
  end
end

-- In a form that no other lists have.
local packed = cmsgpack.pack(lists)
local digest = redis.sha1hex(packed)
return { step[1], digest, digest == ARGV[6] and '' or packed, cmsgpack.pack(marks) }
