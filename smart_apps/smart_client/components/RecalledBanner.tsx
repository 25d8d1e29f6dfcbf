/** That the model behind a result was recalled: by whom, when and why. */
import { StopOutlined } from "@ant-design/icons";
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { resourcesOf } from "../fhir";
import { dateTime } from "../format";
import { type Recall, recallOf } from "../recall";
import type { Session } from "../session";

export function RecallDetails({ recall }: { recall: Recall }) {
  const { t } = useTranslation();
  if (!recall.when) return <>{t("recalled.unstated")}</>;
  return <>{t("recalled.details", { who: recall.who ?? "–", when: dateTime(recall.when), why: recall.why ?? "–" })}</>;
}

/** Stands above the whole screen of a result, `Type/id`, that carries the tag of a recalled model. */
export function RecalledBanner({ session, reference }: { session: Session; reference: string }) {
  const { t } = useTranslation();
  const { data, error } = useQuery({
    queryKey: ["recall", reference],
    queryFn: ({ signal }) => session.fhir.search("Provenance", [["target", reference]], signal),
  });
  return (
    <div className="recalled-banner" role="alert" data-testid="recalled-banner">
      <StopOutlined aria-hidden /> <strong>{t("recalled.title")}</strong> {t("recalled.banner")}
      {data ? (
        <p>
          <RecallDetails recall={recallOf(resourcesOf(data, "Provenance"), reference)} />
        </p>
      ) : null}
      {error ? <p>{t("recalled.unread")}</p> : null}
    </div>
  );
}
