/** The worklist of AI Tasks; it refreshes by itself. */
import { ReloadOutlined, ThunderboltFilled } from "@ant-design/icons";
import { Nothing, Problem } from "@client/components/Problem";
import { StatusTag } from "@client/components/StatusTag";
import { RecallDetails } from "@client/components/RecalledBanner";
import { linkOf } from "@client/fhir";
import { messageOf } from "@client/fhir_error";
import { ago, dateTime } from "@client/format";
import { isChinese } from "@client/i18n";
import type { Session } from "@client/session";
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { App, Button, Card, Segmented, Table, Tag, Tooltip } from "antd";
import { type HTMLAttributes, useEffect, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { loadWork } from "../record";
import { type Filter, FILTERS, workRows, type WorkRow } from "../work_list";
import type { Open } from "./Home";
import { OpenButtons } from "./OpenButtons";
import { Pager } from "./Pager";
import { PatientCell } from "./PatientPanel";

const REFRESH_MS = 3000;

interface WorkPanelProps {
  session: Session;
  open: Open;
  onSynthetic: (synthetic: boolean) => void;
}

export function WorkPanel({ session, open, onSynthetic }: WorkPanelProps) {
  const { t } = useTranslation();
  const [filter, setFilter] = useState<Filter>("all");
  const [pages, setPages] = useState<string[]>([]);
  const url = pages.at(-1);
  const { data, error, isPending, refetch } = useQuery({
    queryKey: ["tasks", url ?? filter],
    queryFn: ({ signal }) => loadWork(session, filter, url, signal),
    placeholderData: keepPreviousData,
    refetchInterval: REFRESH_MS,
  });
  const rows = useMemo(() => (data ? workRows(data.tasks, data.recalls) : []), [data]);
  const synthetic = rows.some((row) => row.synthetic);
  useEffect(() => onSynthetic(synthetic), [synthetic, onSynthetic]);
  const choose = (value: Filter) => {
    setFilter(value);
    setPages([]);
  };
  const options = (Object.keys(FILTERS) as Filter[]).map((value) => ({ value, label: t(`portal.filter.${value}`) }));
  return (
    <Card
      size="small"
      title={t("portal.worklist")}
      className="panel"
      data-testid="work-panel"
      extra={<Segmented<Filter> size="small" options={options} value={filter} onChange={choose} aria-label={t("portal.filterLabel")} />}
    >
      {error ? <Problem error={error} onRetry={() => void refetch()} /> : null}
      <Table<WorkRow>
        size="small"
        rowKey="taskId"
        dataSource={rows}
        loading={isPending && !error}
        pagination={false}
        locale={{ emptyText: isPending || error ? " " : <Nothing>{filter === "all" ? t("portal.noTasks") : t("portal.noTasksFiltered")}</Nothing> }}
        onRow={(row) => ({ "data-testid": "task-row", "data-status": row.status, "data-id": row.taskId }) as HTMLAttributes<HTMLElement>}
        columns={[
          { title: t("portal.state"), width: 168, render: (_, row) => <TaskState row={row} /> },
          { title: t("patient.title"), render: (_, row) => <TaskPatient row={row} /> },
          { title: t("portal.study"), onCell: () => named(t("portal.study")), render: (_, row) => row.description || "–" },
          { title: t("portal.received"), width: 110, onCell: () => named(t("portal.received")), render: (_, row) => <Age value={row.authoredOn} /> },
          { key: "open", width: 178, align: "right", render: (_, row) => <TaskActions row={row} session={session} open={open} /> },
        ]}
      />
      <Pager
        page={pages.length}
        total={data?.tasks.total}
        next={data ? linkOf(data.tasks, "next") : undefined}
        onNext={(next) => setPages([...pages, next])}
        onBack={() => setPages(pages.slice(0, -1))}
      />
    </Card>
  );
}

/** Heads a cell on a narrow screen, where the row of headings is not drawn (app.css). */
function named(name: string): HTMLAttributes<HTMLElement> {
  return { "data-name": name } as HTMLAttributes<HTMLElement>;
}

function Age({ value }: { value: string | undefined }) {
  return (
    <Tooltip title={dateTime(value)}>
      <span className="nowrap">{ago(value)}</span>
    </Tooltip>
  );
}

function TaskState({ row }: { row: WorkRow }) {
  const { t } = useTranslation(); // drawn again when the language changes
  const words = isChinese() ? row.note : (row.noteEn ?? row.note);
  // While it runs the Task names a step by a word of ours; a word that is not known is shown as it is.
  const note = row.status === "in-progress" && words ? t(`portal.progress.${words}` as "portal.progress.analysing", { defaultValue: words }) : words;
  return (
    <div className="task-state">
      {row.priority ? (
        <Tag color={row.priority === "stat" ? "error" : "warning"} icon={<ThunderboltFilled aria-hidden />} data-testid="priority" data-priority={row.priority}>
          {t(`portal.priority.${row.priority}`)}
        </Tag>
      ) : null}
      <StatusTag status={row.status} />
      {note ? <span className="task-note">{note}</span> : null}
      {row.recall ? (
        <span className="task-note" data-testid="recall-details">
          <RecallDetails recall={row.recall} />
        </span>
      ) : null}
    </div>
  );
}

function TaskPatient({ row }: { row: WorkRow }) {
  const { t } = useTranslation();
  if (row.patient) return <PatientCell patient={row.patient} />;
  return (
    <div className="patient-cell">
      <span className="muted">{row.patientId ? t("patient.notReadable") : t("portal.noPatientMatched")}</span>
      {row.synthetic ? <Tag className="synthetic-tag">SYNTHETIC</Tag> : null}
    </div>
  );
}

function TaskActions({ row, session, open }: { row: WorkRow; session: Session; open: Open }) {
  if (row.status === "on-hold") return <RetryMatch row={row} session={session} />;
  if (!row.patientId) return null;
  return <OpenButtons patientId={row.patientId} open={open} primary={row.status === "completed"} />;
}

function RetryMatch({ row, session }: { row: WorkRow; session: Session }) {
  const { t } = useTranslation();
  const { message } = App.useApp();
  const retry = useMutation({
    mutationFn: (uid: string) => session.dicomWeb.registerStudy(uid),
    onSuccess: () => void message.info(t("portal.retrySent")),
    onError: (error) => void message.error(messageOf(error), 8),
  });
  const uid = row.studyInstanceUid;
  return (
    <Button
      size="small"
      icon={<ReloadOutlined aria-hidden />}
      disabled={!uid}
      loading={retry.isPending}
      data-testid="retry-match"
      onClick={() => uid && retry.mutate(uid)}
    >
      {t("portal.retryMatch")}
    </Button>
  );
}
