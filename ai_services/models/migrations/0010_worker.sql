-- Workers that are alive: a Task whose worker gives no sign of life is taken over by another.
CREATE TABLE ai.worker (
    worker_id text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    beat_at timestamptz NOT NULL DEFAULT now(),
    device text NOT NULL,
    queue text NOT NULL
);
