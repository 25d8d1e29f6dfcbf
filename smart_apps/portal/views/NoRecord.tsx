/** What an account sees that may read neither Tasks nor Patients, as an administrator's: why, and the way to its own work. */
import { maySearch } from "@client/scopes";
import { Alert, Button, Space } from "antd";
import { useTranslation } from "react-i18next";

/** The directory is read by administrators, devices by engineers: both have pages of their own in the administration. */
const ADMINISTERED = ["Organization", "Device"];

export function NoRecord({ scope }: { scope: string }) {
  const { t } = useTranslation();
  return (
    <div className="centred">
      <Alert
        type="info"
        showIcon
        data-testid="no-record"
        title={t("portal.noRecord.title")}
        description={
          <>
            <p>{t("portal.noRecord.text")}</p>
            <Space wrap className="no-record-ways">
              {ADMINISTERED.some((type) => maySearch(scope, type)) ? (
                <Button type="primary" href="/apps/admin/" data-testid="administration">
                  {t("portal.administration")}
                </Button>
              ) : null}
              <Button href="/auth/account">{t("portal.account")}</Button>
            </Space>
          </>
        }
      />
    </div>
  );
}
