/** What an app shows that was opened without a patient: the way to the portal, which launches it. */
import { Button } from "antd";
import { useTranslation } from "react-i18next";
import { Notice } from "../boot";

export function NotLaunched({ title }: { title: string }) {
  const { t } = useTranslation();
  return (
    <Notice
      title={title}
      text={t("frame.openFromPortal")}
      extra={
        <Button type="primary" href="/">
          {t("action.toPortal")}
        </Button>
      }
    />
  );
}
