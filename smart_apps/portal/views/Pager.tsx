/** Forward and back through pages whose addresses the server gives. https://hl7.org/fhir/R4/http.html#paging */
import { LeftOutlined, RightOutlined } from "@ant-design/icons";
import { Button } from "antd";
import { useTranslation } from "react-i18next";

interface PagerProps {
  page: number;
  total: number | undefined;
  next: string | undefined;
  onNext: (url: string) => void;
  onBack: () => void;
}

export function Pager({ page, total, next, onNext, onBack }: PagerProps) {
  const { t } = useTranslation();
  return (
    <div className="pager">
      {total === undefined ? null : <span className="muted">{t("portal.total", { count: total })}</span>}
      <span className="spacer" />
      <Button size="small" disabled={page === 0} icon={<LeftOutlined aria-hidden />} aria-label={t("action.previous")} onClick={onBack} />
      <span>{t("portal.page", { page: page + 1 })}</span>
      <Button
        size="small"
        disabled={next === undefined}
        icon={<RightOutlined aria-hidden />}
        aria-label={t("action.next")}
        onClick={() => next && onNext(next)}
      />
    </div>
  );
}
