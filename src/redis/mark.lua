-- Marks a target dead, if the list still is what it was when the target was chosen: an index means
-- nothing in another list. A script, because it is one step for everybody else, as a transaction
-- that watches the list is; and unlike that it needs no second attempt.
--
-- KEYS: the list, the set of marks. ARGV: the index, the seconds it lives, the message for others,
-- then the list.
local list = redis.call('LRANGE', KEYS[1], 0, 65)
if #list ~= #ARGV - 3 then return 0 end
for i, element in ipairs(list) do
  if element ~= ARGV[i + 3] then return 0 end
end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', 'dead', ARGV[3])
return 1
