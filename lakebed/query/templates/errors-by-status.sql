-- title: Errors by status
-- category: errors
-- description: Failed requests by status, with their share of all failed requests.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
SELECT status_code, count(*) AS errors, count(*) / sum(count(*)) OVER () AS share, count(DISTINCT person_id) AS people
FROM events WHERE timestamp >= $start AND timestamp < $end AND status_code >= $errors_from
GROUP BY status_code ORDER BY errors DESC, status_code
