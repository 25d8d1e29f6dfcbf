/** Joins the two halves: a level chosen in the table is shown in the images. */
import type { Session } from "@client/session";
import { lazy, Suspense, useMemo, useState } from "react";
import { levelRows } from "../findings";
import type { ReportRecord } from "../record";
import { SidePanel } from "./SidePanel";

const loadImagePanel = () => import("./ImagePanel");
const ImagePanel = lazy(loadImagePanel);
// The viewer is the largest part: it is fetched while the record is still being read.
void loadImagePanel();

export interface Focus {
  level: string;
  segmentNumber: number | undefined;
  /** Counts clicks, so that the same level can be jumped to again. */
  turn: number;
}

interface WorkspaceProps {
  session: Session;
  patient: fhir4.Patient;
  record: ReportRecord;
  reports: fhir4.DiagnosticReport[];
  onChoose: (reportId: string) => void;
  onDecided: () => void;
}

export function ReviewWorkspace(props: WorkspaceProps) {
  const { record, session } = props;
  const [focus, setFocus] = useState<Focus>();
  const rows = useMemo(() => levelRows(record.observations), [record.observations]);
  const toggle = (level: string) => {
    const segmentNumber = rows.find((row) => row.level === level)?.segmentNumber;
    setFocus((before) => (before?.level === level ? undefined : { level, segmentNumber, turn: (before?.turn ?? 0) + 1 }));
  };
  const source = useMemo(
    () => ({ study: record.studyInstanceUid, series: record.sourceSeriesUid, segmentation: record.segmentationSeriesUid }),
    [record.studyInstanceUid, record.sourceSeriesUid, record.segmentationSeriesUid],
  );
  return (
    <div className="review-grid">
      <Suspense fallback={<div className="image-area" />}>
        <ImagePanel key={`${source.series}`} session={session} source={source} focus={focus} />
      </Suspense>
      <SidePanel {...props} rows={rows} focus={focus} onFocus={toggle} />
    </div>
  );
}
