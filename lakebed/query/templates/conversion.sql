-- title: From one event to another
-- category: cohorts
-- description: People with the first event, and those of them with the second one strictly later.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: first text: the event that begins
-- param: second text: the event that follows
WITH began AS (
    SELECT person_id, min(timestamp) AS at_first FROM events
    WHERE timestamp >= $start AND timestamp < $end AND event = $first AND person_id IS NOT NULL GROUP BY person_id
), came AS (
    SELECT DISTINCT person_id FROM events JOIN began USING (person_id)
    WHERE timestamp >= $start AND timestamp < $end AND event = $second AND timestamp > at_first
)
SELECT count(*) AS people, count(came.person_id) AS converted, converted / nullif(people, 0) AS rate
FROM began LEFT JOIN came USING (person_id)
