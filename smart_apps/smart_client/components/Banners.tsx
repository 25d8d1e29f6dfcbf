/** What must be said on every screen: synthetic data, and that this is no medical device (clinical model §9). */
import { ExperimentOutlined } from "@ant-design/icons";
import { useTranslation } from "react-i18next";

export function SyntheticBanner() {
  const { t } = useTranslation();
  return (
    <div className="synthetic-banner" role="note" data-testid="synthetic-banner">
      <ExperimentOutlined aria-hidden /> <strong>SYNTHETIC</strong> {t("synthetic.banner")}
    </div>
  );
}

export function NotADeviceFooter() {
  return (
    <footer className="app-footer">
      <span lang="zh-CN">非注册医疗器械，不得用于临床诊疗</span>
      <span aria-hidden> · </span>
      <span lang="en">not a registered medical device, not for clinical use</span>
    </footer>
  );
}
