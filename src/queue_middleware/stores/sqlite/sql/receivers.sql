-- Receivers of webhooks, for operators.

-- name: flows_to_probe
-- The flows of a host with an open circuit that have something to send. If only the circuit of the host is open: the flow that is served next.
SELECT flow FROM flow WHERE host = :host AND next_at IS NOT NULL AND health = 'open'
UNION ALL
SELECT * FROM (
    SELECT flow FROM flow WHERE host = :host AND next_at IS NOT NULL
        AND EXISTS (SELECT 1 FROM receiver WHERE receiver.host = :host AND health = 'open')
        AND NOT EXISTS (SELECT 1 FROM flow AS other WHERE other.host = :host AND other.next_at IS NOT NULL AND other.health = 'open')
    ORDER BY next_at LIMIT 1);

-- name: make_probes_due
-- The webhook of each flow that is due first is due now.
UPDATE delivery SET due_at = :now WHERE state = 'pending' AND id IN (
    SELECT (SELECT id FROM delivery WHERE flow = asked.value AND state = 'pending' ORDER BY due_at, id LIMIT 1)
    FROM json_each(:flows) AS asked);
