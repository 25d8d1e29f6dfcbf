-- Model versions, what happened to them, which one speaks where, and what shadows said.
CREATE TABLE ai.model_version (
    name text NOT NULL,
    version text NOT NULL,
    digest text NOT NULL,
    folder text NOT NULL,
    statement text NOT NULL,
    weights jsonb NOT NULL,
    stage text NOT NULL CHECK (stage IN ('candidate', 'shadow', 'released', 'retired', 'recalled')),
    stage_since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);
-- One line a step, never changed: who, when, why, and what the person confirmed.
CREATE TABLE ai.stage_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    from_stage text,
    to_stage text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    by_whom text NOT NULL,
    reason text NOT NULL,
    confirmed jsonb NOT NULL DEFAULT '[]',
    FOREIGN KEY (name, version) REFERENCES ai.model_version
);
CREATE INDEX stage_change_name ON ai.stage_change (name, id);
-- Which release speaks where no rule says otherwise: exactly one a pipeline.
CREATE TABLE ai.current_release (
    name text PRIMARY KEY,
    version text NOT NULL,
    FOREIGN KEY (name, version) REFERENCES ai.model_version
);
CREATE TABLE ai.routing (
    name text PRIMARY KEY,
    rules jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    by_whom text NOT NULL
);
CREATE TABLE ai.shadow_run (
    run_id text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    live_version text NOT NULL,
    study_instance_uid text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    comparison jsonb NOT NULL,
    PRIMARY KEY (run_id, name, version),
    FOREIGN KEY (name, version) REFERENCES ai.model_version
);
CREATE INDEX shadow_run_version ON ai.shadow_run (name, version, at);
