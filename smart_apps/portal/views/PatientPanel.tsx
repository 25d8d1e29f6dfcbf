/** Patients: search on the server, page by page. */
import { SearchOutlined } from "@ant-design/icons";
import { Nothing, Problem } from "@client/components/Problem";
import { linkOf, resourcesOf } from "@client/fhir";
import { ageYears } from "@client/format";
import { isSyntheticPatient, patientIdentifier, patientName } from "@client/resource";
import type { Session } from "@client/session";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { Card, Input, Table, Tag } from "antd";
import { type HTMLAttributes, useDeferredValue, useState } from "react";
import { useTranslation } from "react-i18next";
import { patientQuery } from "../patient_search";
import type { Open } from "./Home";
import { OpenButtons } from "./OpenButtons";
import { Pager } from "./Pager";

const REFRESH_MS = 15_000;

export function PatientPanel({ session, open }: { session: Session; open: Open }) {
  const { t } = useTranslation();
  const [text, setText] = useState("");
  const [pages, setPages] = useState<string[]>([]);
  const term = useDeferredValue(text);
  const url = pages.at(-1);
  const { data, error, isPending, refetch } = useQuery({
    queryKey: ["patients", url ?? patientQuery(term)],
    queryFn: ({ signal }) => (url ? session.fhir.page(url, signal) : session.fhir.search("Patient", patientQuery(term), signal)),
    placeholderData: keepPreviousData,
    refetchInterval: REFRESH_MS,
  });
  const search = (value: string) => {
    setText(value);
    setPages([]);
  };
  const empty = term.trim() ? t("portal.noMatch", { term: term.trim() }) : t("portal.noPatients");
  return (
    <Card size="small" title={t("portal.patients")} className="panel" data-testid="patient-panel">
      <Input
        allowClear
        prefix={<SearchOutlined aria-hidden />}
        placeholder={t("portal.searchHint")}
        aria-label={t("portal.searchHint")}
        value={text}
        onChange={(event) => search(event.target.value)}
        data-testid="patient-search"
      />
      {error && !data ? <Problem error={error} onRetry={() => void refetch()} /> : null}
      <Table<fhir4.Patient>
        size="small"
        rowKey={(patient) => patient.id ?? ""}
        dataSource={data ? resourcesOf(data, "Patient") : []}
        loading={isPending && !error}
        pagination={false}
        locale={{ emptyText: isPending || error ? " " : <Nothing>{empty}</Nothing> }}
        onRow={(patient) =>
          ({ "data-testid": "patient-row", "data-id": patient.id }) as HTMLAttributes<HTMLElement>
        }
        columns={[
          { title: t("patient.title"), render: (_, patient) => <PatientCell patient={patient} /> },
          { title: t("patient.sexAge"), width: 84, render: (_, patient) => <SexAge patient={patient} /> },
          {
            key: "open",
            width: 178,
            align: "right",
            render: (_, patient) => <OpenButtons patientId={patient.id ?? ""} open={open} primary={false} />,
          },
        ]}
      />
      <Pager
        page={pages.length}
        total={data?.total}
        next={data ? linkOf(data, "next") : undefined}
        onNext={(next) => setPages([...pages, next])}
        onBack={() => setPages(pages.slice(0, -1))}
      />
    </Card>
  );
}

export function PatientCell({ patient }: { patient: fhir4.Patient }) {
  const { t } = useTranslation();
  return (
    <div className="patient-cell">
      <strong>{patientName(patient) || t("patient.noName")}</strong>
      <span className="patient-id">{patientIdentifier(patient)}</span>
      {isSyntheticPatient(patient) ? <Tag className="synthetic-tag">SYNTHETIC</Tag> : null}
    </div>
  );
}

function SexAge({ patient }: { patient: fhir4.Patient }) {
  const { t } = useTranslation();
  const age = ageYears(patient.birthDate);
  return (
    <span className="nowrap">
      {patient.gender ? t(`gender.${patient.gender}`) : "–"} {age === undefined ? "–" : t("patient.age", { age })}
    </span>
  );
}
