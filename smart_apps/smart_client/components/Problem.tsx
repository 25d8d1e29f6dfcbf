/** Errors and empty places in words, with what can be done about them. */
import { ReloadOutlined } from "@ant-design/icons";
import { Alert, Button, Empty } from "antd";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { messageOf } from "../fhir_error";

export function Problem({ error, title, onRetry }: { error: unknown; title?: string; onRetry?: () => void }) {
  const { t } = useTranslation();
  const retry = onRetry ? (
    <Button size="small" icon={<ReloadOutlined aria-hidden />} onClick={onRetry}>
      {t("action.retry")}
    </Button>
  ) : undefined;
  return (
    <Alert
      type="error"
      showIcon
      title={title ?? t("error.title")}
      description={messageOf(error)}
      action={retry}
      data-testid="problem"
    />
  );
}

export function Nothing({ children }: { children: ReactNode }) {
  return <Empty image={Empty.PRESENTED_IMAGE_SIMPLE} description={<span className="muted">{children}</span>} />;
}
