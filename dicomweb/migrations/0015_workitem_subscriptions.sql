CREATE TABLE dicomweb.workitem_subscription (
    subject    text NOT NULL,
    client_id  text NOT NULL,
    aetitle    text NOT NULL,
    workitem   text NOT NULL,
    filter     jsonb NOT NULL DEFAULT '{}',
    suspended  boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, client_id, aetitle, workitem)
);
